/* Streams that stay open, and how long a message takes to reach the last of them.
 *
 *   client PORT STREAMS MESSAGES
 *
 * Asks for /events so often, and prints READY when all heads are there. On SIGUSR1 it posts so many messages to
 * /publish, each when all streams have the one before, and prints for each how many milliseconds passed
 * from the request until the last stream had all of it. SIGTERM ends it.
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* How many clients share a source address, which has some 28,000 ports; how long to wait for a message. */
enum { PER_ADDRESS = 5000, PATIENCE_MS = 20000 };

/* A message ends with the only tilde of what a stream gets. */
static const char EVENTS[] = "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
static const char PUBLISH[] = "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 64\r\n\r\n"
                              "A message of sixty-four bytes, which all of the clients hear...~";

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static int connect_from(int index, int port) {
  struct sockaddr_in address = { .sin_family = AF_INET };
  int one = 1, socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) fail("socket");
  setsockopt(socket_fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (unsigned)(index / PER_ADDRESS));
  if (bind(socket_fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons((unsigned short)port);
  if (connect(socket_fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
  return socket_fd;
}

static void write_all(int fd, const char *bytes, size_t size) {
  if (send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size) fail("send");
}

/* Receives the head of a response with this status, and what is sent with it. */
static void read_head(int fd, const char *status) {
  char head[4096];
  size_t length = 0;
  do {
    ssize_t count = recv(fd, head + length, sizeof head - 1 - length, 0);
    if (count <= 0) fail("no response");
    length += (size_t)count;
    head[length] = 0;
  } while (!strstr(head, "\r\n\r\n"));
  if (strncmp(head, status, strlen(status))) {
    fprintf(stderr, "unexpected: %s", head);
    exit(1);
  }
}

/* Publishes a message, and waits until so many streams have it. Milliseconds. */
static double deliver(int publisher, int set, int streams) {
  struct epoll_event events[512];
  char bytes[4096];
  int left = streams;
  double begin = now();
  write_all(publisher, PUBLISH, sizeof PUBLISH - 1);
  while (left > 0) {
    int count = epoll_wait(set, events, 512, PATIENCE_MS);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    if (count == 0) {
      fprintf(stderr, "%d of %d streams wait for a message\n", left, streams);
      exit(1);
    }
    for (int i = 0; i < count; i++) {
      ssize_t size = recv(events[i].data.fd, bytes, sizeof bytes, 0);
      if (size <= 0) fail("a stream has ended");
      for (ssize_t at = 0; at < size; at++) left -= bytes[at] == '~';
    }
  }
  double time = now() - begin;
  read_head(publisher, "HTTP/1.1 20");
  return time;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int port = atoi(argv[1]), streams = atoi(argv[2]), messages = atoi(argv[3]);
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGUSR1);
  sigprocmask(SIG_BLOCK, &wanted, NULL);
  int set = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < streams; i++) {
    struct epoll_event event = { .events = EPOLLIN, .data.fd = connect_from(i, port) };
    write_all(event.data.fd, EVENTS, sizeof EVENTS - 1);
    read_head(event.data.fd, "HTTP/1.1 200");
    epoll_ctl(set, EPOLL_CTL_ADD, event.data.fd, &event);
  }
  int publisher = connect_from(0, port), signal;
  printf("READY\n");
  fflush(stdout);
  while (!sigwait(&wanted, &signal)) {
    for (int i = 0; i < messages; i++) printf("%.2f\n", deliver(publisher, set, streams));
    printf("DONE\n");
    fflush(stdout);
  }
  return 0;
}
