/* Sends datagrams that are refused: COUNT of them, one each PAUSE ns. Prints how long that took, in µs. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    long count = atol(argv[2]), pause = argc > 3 ? atol(argv[3]) : 0;
    long long start = now();
    inet_pton(AF_INET, argv[1], &to.sin_addr);
    for (long number = 0; number < count; number++) {
        while (pause && now() < start + number * pause) {
        }
        sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to);
    }
    printf("%lld\n", (now() - start) / 1000);
    return 0;
}
