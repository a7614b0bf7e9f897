//! Two nodes in one program that keep each other's documents: `cargo run --example pair`.
//!
//! Two devices do the same with nothing but a copy of `cluster.key`: they hear each other by UDP. Here one is told the
//! other's address instead, so that the example runs on any machine and beside any other node.

use cbddc::{Config, Error, Node};
use smol::{LocalExecutor, Timer};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

fn main() -> Result<(), Error> {
    let folder = std::env::temp_dir().join(format!("cbddc-pair-{}", std::process::id()));
    let done = run(&folder);
    // Thrown away either way; a folder that stays is nobody's harm.
    let _ = std::fs::remove_dir_all(&folder);
    done
}

fn run(folder: &Path) -> Result<(), Error> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let left = Node::start(executor.clone(), config(folder, "left", &[])?).await?;
        let address = left.link_address().to_string();
        let right = Node::start(executor.clone(), config(folder, "right", &[address])?).await?;

        left.collection("users").put("alice", &"Alice").await?;
        until(&right, "alice", Some("Alice")).await?;
        println!("right has what left wrote");

        right.collection("users").put("alice", &"Alice Liddell").await?;
        until(&left, "alice", Some("Alice Liddell")).await?;
        println!("left has what right made of it");

        right.collection("users").delete("alice").await?;
        until(&left, "alice", None).await?;
        println!("and it is gone on both");

        right.shutdown().await?;
        left.shutdown().await
    }))
}

/// Both have the cluster key, which the first one makes.
fn config(folder: &Path, name: &str, peers: &[String]) -> Result<Config, Error> {
    Config::builder()
        .data_directory(folder.join(name))
        .key_file(folder.join("cluster.key"))
        .node_id(name)
        .peers(peers)
        .listen_address(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .tcp_port(0)
        .discovery(false)
        .http_address(None)
        .build()
}

/// Looks until a node has a document, or has none.
async fn until(node: &Node, key: &str, expected: Option<&str>) -> Result<(), Error> {
    let users = node.collection("users");
    while users.get::<String>(key).await?.as_deref() != expected {
        Timer::after(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_node_writes_the_other_reads() {
        let folder = std::env::temp_dir().join(format!("cbddc-pair-test-{}", std::process::id()));
        run(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
