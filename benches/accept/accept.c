/* How do connections reach the workers? The same two-worker server in four ways:
 *
 *   share      workers share the listening socket and accept for themselves (EPOLLEXCLUSIVE)
 *   pass       the supervisor accepts and passes each descriptor with SCM_RIGHTS over a
 *              SOCK_SEQPACKET pair, to the workers in turn
 *   least      as `pass`, but to the worker with the fewest connections: workers report each end
 *   batch      as `pass`, but up to 16 descriptors travel in one message
 *
 * Usage: accept MODE PORT. Ends on SIGTERM, and its workers with it. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 2, BATCH = 16, EVENTS = 64 };

static const char KEEP[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                           "Content-Length: 14\r\n\r\nHello, World!\n";
static const char CLOSE[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                            "Content-Length: 14\r\n\r\nHello, World!\n";

static void check(int bad, const char *what) {
  if (bad) { perror(what); exit(1); }
}

static void watch(int epoll, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0, "epoll_ctl");
}

static int listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  check(bind(fd, (struct sockaddr *)&address, sizeof address) < 0, "bind");
  check(listen(fd, 1024) < 0, "listen");
  return fd;
}

/* Answers one request; returns 0 when the connection is to be closed. */
static int answer(int fd) {
  char request[4096];
  ssize_t size = recv(fd, request, sizeof request - 1, 0);
  if (size < 0) return errno == EAGAIN;
  if (size == 0) return 0;
  request[size] = 0;
  int last = strstr(request, "Connection: close") != NULL;
  const char *reply = last ? CLOSE : KEEP;
  size_t length = last ? sizeof CLOSE - 1 : sizeof KEEP - 1;
  return send(fd, reply, length, MSG_NOSIGNAL) == (ssize_t)length && !last;
}

/* Receives up to BATCH descriptors; returns how many, -1 when the supervisor is gone. */
static int receive(int channel, int *fds) {
  char byte, control[CMSG_SPACE(sizeof(int) * BATCH)];
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                           .msg_control = control, .msg_controllen = sizeof control};
  ssize_t size = recvmsg(channel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0) return errno == EAGAIN ? 0 : -1;
  if (size == 0) return -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (!header) return 0;
  int count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  memcpy(fds, CMSG_DATA(header), sizeof(int) * count);
  return count;
}

static void pass(int channel, const int *fds, int count) {
  char byte = 0, control[CMSG_SPACE(sizeof(int) * BATCH)] = {0};
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                           .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * count);
  memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
  check(sendmsg(channel, &message, MSG_NOSIGNAL) < 0, "sendmsg");
  for (int i = 0; i < count; i++) close(fds[i]);
}

static void worker(int listener, int channel, int report) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int epoll = epoll_create1(EPOLL_CLOEXEC), fds[BATCH];
  if (channel >= 0) watch(epoll, channel, EPOLLIN);
  else watch(epoll, listener, EPOLLIN | EPOLLEXCLUSIVE);
  for (;;) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == channel) {
        int count = receive(channel, fds);
        if (count < 0) exit(0);
        for (int j = 0; j < count; j++) watch(epoll, fds[j], EPOLLIN);
      } else if (channel < 0 && fd == listener) {
        int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0) watch(epoll, accepted, EPOLLIN);
      } else if (!answer(fd)) {
        close(fd);
        if (report) check(send(channel, "-", 1, MSG_NOSIGNAL) < 0, "report");
      }
    }
  }
}

static void supervise(int listener, int *channels, int report, int batch) {
  int epoll = epoll_create1(EPOLL_CLOEXEC), held[WORKERS] = {0}, turn = 0;
  watch(epoll, listener, EPOLLIN);
  if (report)
    for (int i = 0; i < WORKERS; i++) watch(epoll, channels[i], EPOLLIN);
  for (;;) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      if (events[i].data.fd != listener) {
        char byte;
        for (int j = 0; j < WORKERS; j++)
          if (channels[j] == events[i].data.fd)
            while (recv(channels[j], &byte, 1, MSG_DONTWAIT) > 0) held[j]--;
        continue;
      }
      int fds[BATCH], count = 0;
      while (count < batch) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) break;
        fds[count++] = fd;
      }
      if (count == 0) continue;
      turn = (turn + 1) % WORKERS;
      if (report && held[1 - turn] < held[turn]) turn = 1 - turn;
      held[turn] += count;
      pass(channels[turn], fds, count);
    }
  }
}

static void stop(int signal) { (void)signal; _exit(0); }

int main(int argc, char **argv) {
  if (argc != 3) { fprintf(stderr, "usage: accept share|pass|least|batch PORT\n"); return 1; }
  int share = !strcmp(argv[1], "share"), report = !strcmp(argv[1], "least");
  int batch = !strcmp(argv[1], "batch") ? BATCH : 1, listener = listen_on(atoi(argv[2]));
  int channels[WORKERS];
  for (int i = 0; i < WORKERS; i++) {
    int pair[2] = {-1, -1};
    if (!share) check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0, "socketpair");
    channels[i] = pair[0];
    if (fork() == 0) worker(listener, pair[1], report);
    if (!share) close(pair[1]);
  }
  signal(SIGTERM, stop);
  if (share) for (;;) pause();
  supervise(listener, channels, report, batch);
}
