# Sourced by the scripts beside it: the rows of cross/targets, how cargo is called for one, and where private tools and results
# lie. Does nothing by itself.
# shellcheck shell=bash disable=SC2034

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target_directory=${CARGO_TARGET_DIR:-$repository/target}
# Tools that are ours alone: removed with `cargo clean`, put back by cross/setup.
private=$target_directory/cross

# All targets, in the order of the table.
targets() {
    awk '!/^#/ && NF { print $1 }' "$repository/cross/targets"
}

# Sets made, emulator, cpu, linked, arch and max_kb for one target.
row() {
    local found
    found=$(awk -v target="$1" '!/^#/ && $1 == target' "$repository/cross/targets")
    if [[ -z $found ]]; then
        printf '%s is no target of cross/targets; there are:\n%s\n' "$1" "$(targets)" >&2
        return 1
    fi
    read -r target made emulator cpu linked arch max_kb <<<"$found"
}

# The binary that cross/build makes.
binary() {
    printf '%s/%s/dist/cbddc\n' "$target_directory" "$1"
}

# Sets options and environment: what cargo is told, beside its command, for all targets that are named. They are made alike: one
# cargo builds them side by side, where two would wait for each other.
cargo_options() {
    # A panic ends the process: nothing ever unwinds, and the tables for it are a tenth of the binary.
    local flags=(-C force-unwind-tables=no) own=() list name
    # Where these are set, cargo forgets those above and those of .cargo/config.toml, without which nothing is linked: whoever
    # has flags of their own means them beside the target's.
    if [[ -v CARGO_ENCODED_RUSTFLAGS ]]; then
        IFS=$'\x1f' read -r -d '' -a own < <(printf '%s\0' "$CARGO_ENCODED_RUSTFLAGS") || true
    elif [[ -v RUSTFLAGS ]]; then
        read -r -d '' -a own < <(printf '%s\0' "$RUSTFLAGS") || true
    fi
    unset CARGO_ENCODED_RUSTFLAGS RUSTFLAGS
    list=$(printf ", '%s'" "${flags[@]}" "${own[@]}")
    options=(--locked --profile dist --bin cbddc)
    environment=()
    for name in "$@"; do
        row "$name"
        options+=(--target "$target" --config "target.$target.rustflags=[${list#, }]")
        environment+=("CFLAGS_${target//-/_}=-fno-asynchronous-unwind-tables -fno-unwind-tables")
    done
    [[ $made == zig ]] || return 0
    if [[ ! -x $private/venv/bin/cargo-zigbuild ]]; then
        printf 'cargo-zigbuild is missing: run cross/setup\n' >&2
        return 1
    fi
    # It asks `python3` for zig.
    export PATH=$private/venv/bin:$PATH
    # The flags are nightly's, the toolchain is not: the compiler that everything else is built with builds std, too. Naming
    # the features leaves `backtrace` out, which cannot name anything in a stripped binary.
    environment+=(RUSTC_BOOTSTRAP=1)
    options+=("-Zbuild-std=std,panic_abort" "-Zbuild-std-features=optimize_for_size")
}

# The C compiler and linker of the target that is set.
c_compiler() {
    case $made in
    gcc) printf '%s-linux-%s-gcc\n' "$emulator" "${target##*-linux-}" ;;
    zig) printf '%s-cc\n' "${target/-unknown/}" ;;
    esac
}

# Keeps podman's settings and images in the private folder, where it is the engine.
containers() {
    [[ ${CROSS_CONTAINER_ENGINE:-podman} == podman ]] || return 0
    mkdir -p "$private/containers"
    # cgroupfs, files and limits: what a machine without systemd, journal or CAP_SYS_RESOURCE can do. runc: crun refuses
    # cgroups in hybrid mode.
    cat >"$private/containers/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:8192"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
CONF
    cat >"$private/containers/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$private/containers/storage"
runroot = "$private/containers/run"
CONF
    export CONTAINERS_CONF=$private/containers/containers.conf CONTAINERS_STORAGE_CONF=$private/containers/storage.conf
}
