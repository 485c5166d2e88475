/* The least that a reader of an nflog group can do: binds it, receives, counts. Prints packets, overruns and its CPU time in µs on SIGTERM. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t over;
static void end(int number) { (void)number; over = 1; }

static void attribute(char *message, int type, const void *data, int length)
{
    struct nlmsghdr *header = (struct nlmsghdr *)message;
    struct nlattr *attr = (struct nlattr *)(message + NLMSG_ALIGN(header->nlmsg_len));
    attr->nla_type = type;
    attr->nla_len = NLA_HDRLEN + length;
    memcpy((char *)attr + NLA_HDRLEN, data, length);
    header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + NLA_ALIGN(attr->nla_len);
}

int main(int argc, char **argv)
{
    static char buffer[256 * 1024];
    char message[256] = {0};
    int group = atoi(argv[1]), room = atoi(argv[2]);
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct nlmsghdr *header = (struct nlmsghdr *)message;
    struct nfgenmsg *family = NLMSG_DATA(header);
    struct nfulnl_msg_config_cmd bind_group = {.command = NFULNL_CFG_CMD_BIND};
    struct nfulnl_msg_config_mode mode = {.copy_range = htonl(128), .copy_mode = NFULNL_COPY_PACKET};
    uint32_t threshold = htonl(1);
    struct sigaction action = {.sa_handler = end};
    struct rusage used;
    unsigned long packets = 0, overruns = 0;
    (void)argc;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    header->nlmsg_len = NLMSG_LENGTH(sizeof *family);
    header->nlmsg_type = (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    family->res_id = htons(group);
    attribute(message, NFULA_CFG_CMD, &bind_group, sizeof bind_group);
    attribute(message, NFULA_CFG_MODE, &mode, sizeof mode);
    attribute(message, NFULA_CFG_QTHRESH, &threshold, sizeof threshold);
    if (sendto(fd, message, header->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        return 1;
    if (recv(fd, buffer, sizeof buffer, 0) < 0 || ((struct nlmsgerr *)NLMSG_DATA(buffer))->error)
        return 2;
    sigaction(SIGTERM, &action, NULL);
    puts("bound");
    fflush(stdout);
    while (!over) {
        int length = recv(fd, buffer, sizeof buffer, 0);
        if (length < 0) {
            overruns += errno == ENOBUFS;
            continue;
        }
        for (header = (struct nlmsghdr *)buffer; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length))
            packets += header->nlmsg_type == ((NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_PACKET);
    }
    getrusage(RUSAGE_SELF, &used);
    printf("%lu %lu %ld\n", packets, overruns,
           (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000L + used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    return 0;
}
