// Tries to get out in one of many ways, and says who tried: a line `PROTOCOL SOURCE-PORT DESTINATION-PORT PID` before each packet,
// with 0 for a port that the kernel will choose. Never waits for an answer: each attempt is to be refused at once.
//
// attempt WAY [ARGUMENT…]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUT "203.0.113.9"

static void die(const char *what) {
    perror(what);
    exit(3);
}

static void say(int protocol, int sport, int dport) {
    char line[64];
    int length = snprintf(line, sizeof line, "%d %d %d %d\n", protocol, sport, dport, getpid());
    if (write(1, line, length) != length)
        _exit(4);
}

static struct sockaddr_in to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, OUT, &address.sin_addr);
    return address;
}

static int made(int family, int type, int protocol) {
    int fd = socket(family, type | SOCK_CLOEXEC, protocol);
    if (fd < 0)
        die("socket");
    return fd;
}

// Takes a source port of its own, so that it can be told beforehand.
static int own_port(int fd) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t size = sizeof any;
    if (bind(fd, (void *)&any, sizeof any) || getsockname(fd, (void *)&any, &size))
        die("bind");
    return ntohs(any.sin_port);
}

static void reach(int fd, int port) {
    struct sockaddr_in address = to(port);
    connect(fd, (void *)&address, sizeof address);
}

// Same bytes as far as they are looked at, and behind them who it really is.
#define TEXT 53
static void text(char *to) {
    char all[TEXT + 1];
    snprintf(all, sizeof all, "%-42s%011d", "hello, who is there? it is me, for sure", getpid());
    memcpy(to, all, TEXT);
}

static void throw(int fd, int port) {
    struct sockaddr_in address = to(port);
    char bytes[TEXT];
    text(bytes);
    sendto(fd, bytes, TEXT, 0, (void *)&address, sizeof address);
}

static void tcp(int port) {
    int fd = made(AF_INET, SOCK_STREAM, 0);
    say(6, 0, port);
    reach(fd, port);
    close(fd);
}

static void udp(int port) {
    int fd = made(AF_INET, SOCK_DGRAM, 0);
    int sport = own_port(fd);
    say(17, sport, port);
    throw(fd, port);
    close(fd);
}

static void tcp_same(void) {
    int fd = made(AF_INET, SOCK_STREAM, 0);
    say(6, own_port(fd), 443);
    reach(fd, 443);
    close(fd);
}

static void *thread(void *port) {
    prctl(PR_SET_NAME, "a-thread");
    tcp((int)(long)port);
    return NULL;
}

static void parallel(int count, void (*way)(void)) {
    int gate[2];
    char byte;
    if (pipe(gate))
        die("pipe");
    for (int i = 0; i < count; i++)
        if (fork() == 0) {
            close(gate[1]);
            if (read(gate[0], &byte, 1)) {}
            for (int j = 0; j < 20; j++)
                way();
            _exit(0);
        }
    close(gate[1]);
    while (wait(NULL) > 0) {}
}

static void udp_same(void) { udp(443); }

static int ring_connect(int port) {
    struct io_uring_params params = {0};
    int ring = syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0)
        return -1;
    size_t sq_size = params.sq_off.array + params.sq_entries * 4;
    char *sq = mmap(0, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *sqes =
        mmap(0, params.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    struct sockaddr_in address = to(port);
    int fd = made(AF_INET, SOCK_STREAM, 0);
    memset(sqes, 0, sizeof *sqes);
    sqes->opcode = IORING_OP_CONNECT;
    // By a worker thread, not by this one.
    sqes->flags = IOSQE_ASYNC;
    sqes->fd = fd;
    sqes->addr = (uintptr_t)&address;
    sqes->off = sizeof address;
    ((unsigned *)(sq + params.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *)(sq + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    say(6, 0, port);
    syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    return 0;
}

static void raw_udp(int sport, int dport, const char *source) {
    struct { struct iphdr ip; uint16_t udp[4]; char text[TEXT]; } __attribute__((packed)) packet = {0};
    struct sockaddr_in address = to(0);
    int fd = made(AF_INET, SOCK_RAW, IPPROTO_RAW);
    packet.ip.version = 4;
    packet.ip.ihl = 5;
    packet.ip.ttl = 64;
    packet.ip.protocol = 17;
    packet.ip.frag_off = htons(0x4000);
    packet.ip.saddr = inet_addr(source);
    packet.ip.daddr = address.sin_addr.s_addr;
    packet.udp[0] = htons(sport);
    packet.udp[1] = htons(dport);
    packet.udp[2] = htons(sizeof packet - sizeof packet.ip);
    // What the kernel writes where a device is to finish the checksum.
    uint32_t sum = packet.udp[2] + htons(17);
    for (int half = 0; half < 2; half++)
        sum += ((uint16_t *)&packet.ip.saddr)[half] + ((uint16_t *)&packet.ip.daddr)[half];
    sum = (sum & 0xffff) + (sum >> 16);
    packet.udp[3] = (sum & 0xffff) + (sum >> 16);
    text(packet.text);
    sendto(fd, &packet, sizeof packet, 0, (void *)&address, sizeof address);
    close(fd);
}

static void pass(int pair, int fd) {
    char byte = 0, space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (fd >= 0) {
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        if (sendmsg(pair, &message, 0) != 1)
            die("sendmsg");
    }
}

static int taken(int pair) {
    int fd;
    char byte, space[CMSG_SPACE(sizeof fd)];
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (recvmsg(pair, &message, 0) != 1)
        die("recvmsg");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

// Makes the kernel believe that this process executes another file. Needs a user namespace of its own.
static int other_exe(const char *path) {
    // All mappings of the real file must go first: not worth it from C. The attempt alone must change nothing.
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, fd, 0, 0);
}

static int by_size(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

int main(int count, char **words) {
    const char *way = count > 1 ? words[1] : "";
#define IS(name) (strcmp(way, name) == 0)
    if (IS("tcp")) {
        tcp(1001);
    } else if (IS("udp")) {
        udp(1002);
    } else if (IS("connected-udp")) {
        int fd = made(AF_INET, SOCK_DGRAM, 0);
        say(17, 0, 1003);
        reach(fd, 1003);
        if (write(fd, "x", 1)) {}
        // Hears of the first one's end, and sends nothing.
        if (send(fd, "y", 1, 0)) {}
        say(17, 0, 1003);
        if (send(fd, "z", 1, 0)) {}
    } else if (IS("parallel")) {
        parallel(16, tcp_same);
    } else if (IS("parallel-udp")) {
        parallel(16, udp_same);
    } else if (IS("threads")) {
        pthread_t threads[8];
        for (long i = 0; i < 8; i++)
            pthread_create(&threads[i], NULL, thread, (void *)(1100 + i));
        for (int i = 0; i < 8; i++)
            pthread_join(threads[i], NULL);
    } else if (IS("leaderless")) {
        // The thread that began the process ends before another one tries.
        pthread_t late;
        pthread_create(&late, NULL, thread, (void *)1110);
        syscall(SYS_exit, 0);
    } else if (IS("uring")) {
        if (ring_connect(1004) < 0) {
            if (errno != ENOSYS)
                die("io_uring_setup");
            puts("no io_uring");
        }
    } else if (IS("raw")) {
        say(17, 4242, 1005);
        raw_udp(4242, 1005, words[2]);
        int fd = made(AF_INET, SOCK_RAW, IPPROTO_ICMP);
        struct sockaddr_in address = to(0);
        say(1, 0, 0);
        sendto(fd, "\x08\x00\xf7\xff\0\0\0\0", 8, 0, (void *)&address, sizeof address);
    } else if (IS("mapped")) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(1006)};
        inet_pton(AF_INET6, "::ffff:" OUT, &address.sin6_addr);
        int fd = made(AF_INET6, SOCK_STREAM, 0);
        say(6, 0, 1006);
        connect(fd, (void *)&address, sizeof address);
    } else if (IS("six")) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(1007)};
        inet_pton(AF_INET6, "2001:db8::9", &address.sin6_addr);
        int fd = made(AF_INET6, SOCK_STREAM, 0);
        say(6, 0, 1007);
        connect(fd, (void *)&address, sizeof address);
        fd = made(AF_INET6, SOCK_DGRAM, 0);
        say(17, 0, 1007);
        sendto(fd, "x", 1, 0, (void *)&address, sizeof address);
    } else if (IS("fast-open")) {
        int fd = made(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in address = to(1008);
        say(6, 0, 1008);
        sendto(fd, "early", 5, MSG_FASTOPEN, (void *)&address, sizeof address);
    } else if (IS("fork-exit")) {
        for (int i = 0; i < 20; i++) {
            pid_t child = fork();
            if (child == 0) {
                int fd = made(AF_INET, SOCK_STREAM, 0);
                say(6, 0, 1200 + i);
                reach(fd, 1200 + i);
                _exit(0);
            }
            waitpid(child, NULL, 0);
        }
    } else if (IS("exec-after")) {
        // The socket is made by one program and used by the next, in one process.
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        char number[12];
        snprintf(number, sizeof number, "%d", fd);
        execl("/proc/self/exe", "second-program", "with", number, "1009", NULL);
    } else if (IS("with")) {
        say(6, 0, atoi(words[3]));
        reach(atoi(words[2]), atoi(words[3]));
    } else if (IS("inherited")) {
        int one = made(AF_INET, SOCK_STREAM, 0), two = made(AF_INET, SOCK_DGRAM, 0);
        int sport = own_port(two);
        say(17, sport, 1010);
        throw(two, 1010);
        pid_t child = fork();
        if (child == 0) {
            say(6, 0, 1010);
            reach(one, 1010);
            say(17, sport, 1010);
            throw(two, 1010);
            _exit(0);
        }
        waitpid(child, NULL, 0);
        say(17, sport, 1010);
        throw(two, 1010);
    } else if (IS("passed")) {
        int pair[2];
        socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
        pid_t child = fork();
        if (child == 0) {
            int fd = taken(pair[1]);
            say(6, 0, 1011);
            reach(fd, 1011);
            _exit(0);
        }
        int fd = made(AF_INET, SOCK_STREAM, 0);
        pass(pair[0], fd);
        close(fd);
        waitpid(child, NULL, 0);
    } else if (IS("deleted")) {
        unlink(words[0]);
        tcp(1012);
    } else if (IS("replaced")) {
        // Somebody puts another file in its place.
        if (rename(words[2], words[0]))
            die("rename");
        tcp(1013);
    } else if (IS("daemon")) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0) {
                usleep(20000);
                tcp(1014);
            }
            _exit(0);
        }
        wait(NULL);
        usleep(100000);
    } else if (IS("forged-comm")) {
        prctl(PR_SET_NAME, "systemd\033[2J");
        strncpy(words[0], "/sbin/init", strlen(words[0]));
        tcp(1015);
    } else if (IS("other-exe")) {
        if (other_exe("/bin/true") == 0)
            puts("changed");
        tcp(1016);
    } else if (IS("pid-namespace")) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
            die("unshare");
        int real[2];
        if (pipe(real))
            die("pipe");
        pid_t child = fork();
        if (child == 0) {
            pid_t told;
            if (read(real[0], &told, sizeof told)) {}
            char line[64];
            int length = snprintf(line, sizeof line, "6 0 1017 %d\n", told);
            if (write(1, line, length)) {}
            int fd = made(AF_INET, SOCK_STREAM, 0);
            reach(fd, 1017);
            _exit(getpid() == 1 ? 0 : 6);
        }
        if (write(real[1], &child, sizeof child)) {}
        int status;
        waitpid(child, &status, 0);
        return WEXITSTATUS(status);
    } else if (IS("framed")) {
        // A victim sends, and somebody else sends the same bytes through a raw socket, at the same time and again and again.
        int fd = made(AF_INET, SOCK_DGRAM, 0);
        int sport = own_port(fd);
        pid_t villain = fork();
        if (villain == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (int i = 0; i < 200; i++) {
                say(17, sport, 1018);
                raw_udp(sport, 1018, words[2]);
            }
            _exit(0);
        }
        for (int i = 0; i < 200; i++) {
            say(17, sport, 1018);
            throw(fd, 1018);
        }
        waitpid(villain, NULL, 0);
    } else if (IS("flood")) {
        // One process sends as fast as it can, another one tries once in a while.
        int packets = atoi(words[2]);
        pid_t child = fork();
        if (child == 0) {
            int fd = made(AF_INET, SOCK_DGRAM, 0);
            say(17, 0, 1019);
            for (int i = 0; i < packets; i++)
                throw(fd, 1019);
            _exit(0);
        }
        for (int i = 0; i < 50; i++) {
            tcp(1300 + i);
            usleep(1000);
        }
        waitpid(child, NULL, 0);
    } else if (IS("shared-port")) {
        // Two processes take turns with one source port: the second binds it when the first has closed it.
        for (int i = 0; i < 50; i++) {
            pid_t child = fork();
            if (child == 0) {
                int fd = made(AF_INET, SOCK_DGRAM, 0), on = 1;
                struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(4343)};
                setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
                if (bind(fd, (void *)&own, sizeof own))
                    die("bind");
                say(17, 4343, 1020);
                throw(fd, 1020);
                _exit(0);
            }
            waitpid(child, NULL, 0);
        }
    } else if (IS("both-share")) {
        // One socket, two processes that send the same at the same time.
        int fd = made(AF_INET, SOCK_DGRAM, 0);
        int sport = own_port(fd);
        pid_t child = fork();
        for (int i = 0; i < 500; i++) {
            say(17, sport, 1021);
            throw(fd, 1021);
        }
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    } else if (IS("crowd")) {
        // One socket, and many processes that send the same at the same time.
        int fd = made(AF_INET, SOCK_DGRAM, 0);
        own_port(fd);
        for (int i = 0; i < 40; i++)
            if (fork() == 0) {
                for (int j = 0; j < 20; j++)
                    throw(fd, 1022);
                _exit(0);
            }
        while (wait(NULL) > 0)
            ;
    } else if (IS("connects") || IS("sends")) {
        // For the benchmark: so many, and how many nanoseconds the one in the middle took.
        struct timespec before, after;
        static uint64_t took[4096];
        int attempts = atoi(words[2]), port = atoi(words[3]);
        int fd = made(AF_INET, SOCK_DGRAM, 0);
        for (int i = 0; i < attempts; i++) {
            int one = IS("sends") ? fd : made(AF_INET, SOCK_STREAM, 0);
            struct linger now = {1, 0};
            setsockopt(one, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            clock_gettime(CLOCK_MONOTONIC, &before);
            if (IS("sends"))
                throw(fd, port);
            else
                reach(one, port);
            clock_gettime(CLOCK_MONOTONIC, &after);
            took[i % 4096] = (after.tv_sec - before.tv_sec) * 1000000000ull + after.tv_nsec - before.tv_nsec;
            if (one != fd)
                close(one);
        }
        if (attempts > 4096)
            attempts = 4096;
        qsort(took, attempts, sizeof *took, by_size);
        printf("%llu\n", (unsigned long long)took[attempts / 2]);
    } else {
        fprintf(stderr, "no such way: %s\n", way);
        return 2;
    }
    return 0;
}
