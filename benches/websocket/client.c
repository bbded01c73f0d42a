// Clients of WebSockets: CONNECTIONS of them, each with PIPELINE messages under way, for SECONDS.
// Usage: client PORT CONNECTIONS PIPELINE SECONDS; it prints how many messages have come back in a second.
// With a pipeline of 0 they say nothing: it prints READY, and stays until a signal ends it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TEXT "hello, world 123"
#define SIZE ((int)sizeof(TEXT) - 1)

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int open_socket(int port) {
  static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
  struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port) };
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0) fail("send");
  char head[4096];
  int length = 0;
  do {
    ssize_t count = recv(fd, head + length, sizeof head - 1 - (size_t)length, 0);
    if (count <= 0) fail("handshake");
    length += (int)count;
    head[length] = 0;
  } while (!strstr(head, "\r\n\r\n"));
  if (strncmp(head, "HTTP/1.1 101", 12)) fail("no upgrade");
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int port = atoi(argv[1]), connections = atoi(argv[2]), pipeline = atoi(argv[3]);
  double seconds = atof(argv[4]);
  // A masked frame, as often as the pipeline is long; what comes back has no mask.
  char frame[6 + SIZE] = { (char)0x81, (char)(0x80 | SIZE), 1, 2, 3, 4 };
  for (int i = 0; i < SIZE; i++) frame[6 + i] = (char)(TEXT[i] ^ frame[2 + i % 4]);
  size_t out_size = sizeof frame * (size_t)pipeline, in_size = (size_t)(2 + SIZE) * (size_t)pipeline;
  char *out = malloc(out_size + 1), *in = malloc(1 << 20);
  size_t *received = calloc(1 << 20, sizeof *received);
  for (int i = 0; i < pipeline; i++) memcpy(out + sizeof frame * (size_t)i, frame, sizeof frame);
  int set = epoll_create1(0);
  int *sockets = calloc((size_t)connections, sizeof *sockets);
  for (int i = 0; i < connections; i++) {
    sockets[i] = open_socket(port);
    struct epoll_event event = { .events = EPOLLIN, .data.fd = sockets[i] };
    epoll_ctl(set, EPOLL_CTL_ADD, sockets[i], &event);
  }
  if (pipeline == 0) {
    puts("READY");
    fflush(stdout);
    pause();
    return 0;
  }
  for (int i = 0; i < connections; i++) send(sockets[i], out, out_size, MSG_NOSIGNAL);
  double begin = now(), end = begin + seconds;
  unsigned long messages = 0;
  struct epoll_event events[256];
  while (now() < end) {
    int count = epoll_wait(set, events, 256, 1000);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      ssize_t size = recv(fd, in, 1 << 20, 0);
      if (size <= 0) fail("a connection has ended");
      received[fd] += (size_t)size;
      while (received[fd] >= in_size) {
        received[fd] -= in_size;
        messages += (unsigned long)pipeline;
        send(fd, out, out_size, MSG_NOSIGNAL);
      }
    }
  }
  printf("%.0f\n", (double)messages / (now() - begin));
  return 0;
}
