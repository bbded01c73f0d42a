/* What two processes can do at most: a bare epoll loop each on a shared listening socket. It
 * looks for the end of the head and for "Connection: close", and parses nothing.
 *
 * Usage: epoll_loop PORT. Ends on SIGTERM, and its workers with it. Linux only.
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
#include <time.h>
#include <unistd.h>

enum { WORKERS = 2, EVENTS = 64 };

static void check(int bad, const char *what) {
  if (bad) { perror(what); exit(1); }
}

/* The response with today's date, made anew once a second. */
static size_t response(int last, const char **bytes) {
  static time_t made[2];
  static char text[2][256];
  static size_t size[2];
  time_t now = time(NULL);
  if (made[last] != now) {
    char date[64];
    struct tm parts;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
    size[last] = snprintf(text[last], sizeof text[last],
                          "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/plain\r\n"
                          "Content-Length: 14\r\nConnection: %s\r\n\r\nHello, World!\n",
                          date, last ? "close" : "keep-alive");
    made[last] = now;
  }
  *bytes = text[last];
  return size[last];
}

/* Answers one request; returns 0 when the connection is to be closed. */
static int answer(int fd) {
  char request[4096];
  ssize_t size = recv(fd, request, sizeof request - 1, 0);
  if (size < 0) return errno == EAGAIN;
  if (size < 4 || memcmp(request + size - 4, "\r\n\r\n", 4)) return 0;
  request[size] = 0;
  int last = strstr(request, "Connection: close") != NULL;
  const char *bytes;
  size_t length = response(last, &bytes);
  return send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length && !last;
}

static void watch(int epoll, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0, "epoll_ctl");
}

static void work(int listener) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int epoll = epoll_create1(EPOLL_CLOEXEC), on = 1;
  watch(epoll, listener, EPOLLIN | EPOLLEXCLUSIVE);
  for (;;) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd != listener) {
        if (!answer(fd)) close(fd);
        continue;
      }
      fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) continue;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      watch(epoll, fd, EPOLLIN);
    }
  }
}

static void stop(int signal) { (void)signal; _exit(0); }

int main(int argc, char **argv) {
  if (argc != 2) { fprintf(stderr, "usage: epoll_loop PORT\n"); return 1; }
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  check(bind(listener, (struct sockaddr *)&address, sizeof address) < 0, "bind");
  check(listen(listener, 1024) < 0, "listen");
  for (int i = 0; i < WORKERS; i++)
    if (fork() == 0) work(listener);
  signal(SIGTERM, stop);
  for (;;) pause();
}
