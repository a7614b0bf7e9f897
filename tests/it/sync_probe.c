/* What a process tells the disk, its sockets and its terminal, and a disk that is as slow as asked.
 *
 * Preloaded (LD_PRELOAD) into a node by tests; never part of one. Linux only.
 *
 * CBDDC_PROBE_DELAY_MS  every fsync and fdatasync first sleeps that long.
 * CBDDC_PROBE_STALL     while a file of that name exists, every fsync and fdatasync first sleeps, 30 s at most.
 * CBDDC_PROBE_FAIL      while a file of that name exists, every fsync and fdatasync fails with EIO.
 * CBDDC_PROBE_HOLD      while a file of that name exists, no fsync and no fdatasync comes to its end.
 * CBDDC_PROBE_LOG       one line for each event is appended to that file, each by a single write:
 *                         sync <path>                           after fsync or fdatasync has returned 0
 *                         recv <local port> <peer port> <text>  after bytes have come from a TCP socket
 *                         send <local port> <peer port> <text>  before bytes go to a TCP socket
 *                         stderr <text>                         before a write to descriptor 2
 *                       <text> is the first 80 bytes, with '.' for what cannot be printed.
 *
 * A "sync" between a "recv" and its "send" is therefore one that was over before the answer left. The system calls are
 * made directly, so nothing here can recurse. A caller that does not go through the C library is not seen.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 80, LINE = 4400 };
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int log_fd = -1;
static long delay_ms = 0;
static const char *fail = 0, *hold = 0, *stall = 0;

static void start(void) {
    const char *path = getenv("CBDDC_PROBE_LOG"), *delay = getenv("CBDDC_PROBE_DELAY_MS");
    if (path) log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (delay) delay_ms = atol(delay);
    fail = getenv("CBDDC_PROBE_FAIL");
    hold = getenv("CBDDC_PROBE_HOLD");
    stall = getenv("CBDDC_PROBE_STALL");
}

static void put(const char *line, int length) {
    if (length > 0 && length < LINE) syscall(SYS_write, log_fd, line, length);
}

static void text(char *out, const void *bytes, size_t length) {
    const unsigned char *from = bytes;
    size_t n = length < TEXT ? length : TEXT;
    for (size_t i = 0; i < n; i++) out[i] = from[i] >= 32 && from[i] < 127 ? from[i] : '.';
    out[n] = 0;
}

static int port(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET) return ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->ss_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return -1;
}

static void moved(const char *event, int fd, const void *bytes, ssize_t length) {
    pthread_once(&once, start);
    if (log_fd < 0 || length <= 0 || !bytes) return;
    int kept = errno, type = 0;
    char line[LINE], shown[TEXT + 1];
    socklen_t size = sizeof type;
    struct sockaddr_storage here = {0}, there = {0};
    if (fd == 2) {
        text(shown, bytes, length);
        if (*event == 's') put(line, snprintf(line, LINE, "stderr %s\n", shown));
    } else if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM) {
        socklen_t a = sizeof here, b = sizeof there;
        if (getsockname(fd, (struct sockaddr *)&here, &a) == 0 && port(&here) >= 0 &&
            getpeername(fd, (struct sockaddr *)&there, &b) == 0) {
            text(shown, bytes, length);
            put(line, snprintf(line, LINE, "%s %d %d %s\n", event, port(&here), port(&there), shown));
        }
    }
    errno = kept;
}

static int synced(long number, int fd) {
    pthread_once(&once, start);
    for (int n = 0; stall && n < 600 && access(stall, F_OK) == 0; n++) {
        struct timespec step = {0, 50000000};
        nanosleep(&step, 0);
    }
    if (delay_ms > 0) {
        struct timespec left = {delay_ms / 1000, delay_ms % 1000 * 1000000};
        while (nanosleep(&left, &left) == -1 && errno == EINTR) {}
    }
    while (hold && access(hold, F_OK) == 0) {
        struct timespec moment = {0, 20000000};
        nanosleep(&moment, 0);
    }
    if (fail && access(fail, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    int result = syscall(number, fd), kept = errno;
    if (result == 0 && log_fd >= 0) {
        char name[32], path[4096], line[LINE];
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(name, path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
        put(line, snprintf(line, LINE, "sync %s\n", path));
    }
    errno = kept;
    return result;
}

int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }

ssize_t read(int fd, void *to, size_t size) {
    ssize_t got = syscall(SYS_read, fd, to, size);
    moved("recv", fd, to, got);
    return got;
}
ssize_t recvfrom(int fd, void *to, size_t size, int flags, struct sockaddr *from, socklen_t *length) {
    ssize_t got = syscall(SYS_recvfrom, fd, to, size, flags, from, length);
    if (!(flags & MSG_PEEK)) moved("recv", fd, to, got);
    return got;
}
ssize_t recv(int fd, void *to, size_t size, int flags) { return recvfrom(fd, to, size, flags, 0, 0); }
ssize_t readv(int fd, const struct iovec *to, int count) {
    ssize_t got = syscall(SYS_readv, fd, to, count);
    if (got > 0 && count > 0) moved("recv", fd, to->iov_base, got < (ssize_t)to->iov_len ? got : (ssize_t)to->iov_len);
    return got;
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    ssize_t got = syscall(SYS_recvmsg, fd, message, flags);
    if (got > 0 && message->msg_iovlen > 0) {
        ssize_t first = message->msg_iov->iov_len;
        moved("recv", fd, message->msg_iov->iov_base, got < first ? got : first);
    }
    return got;
}
ssize_t write(int fd, const void *from, size_t size) {
    moved("send", fd, from, size);
    return syscall(SYS_write, fd, from, size);
}
ssize_t sendto(int fd, const void *from, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    moved("send", fd, from, size);
    return syscall(SYS_sendto, fd, from, size, flags, to, length);
}
ssize_t send(int fd, const void *from, size_t size, int flags) { return sendto(fd, from, size, flags, 0, 0); }
ssize_t writev(int fd, const struct iovec *from, int count) {
    if (count > 0) moved("send", fd, from->iov_base, from->iov_len);
    return syscall(SYS_writev, fd, from, count);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (message->msg_iovlen > 0) moved("send", fd, message->msg_iov->iov_base, message->msg_iov->iov_len);
    return syscall(SYS_sendmsg, fd, message, flags);
}
