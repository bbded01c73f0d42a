/* The transfer loop of main.lua in C: sends and receives BLOCKS blocks of 64 KiB over a socket pair
   within one process, and prints the seconds it took. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { SIZE = 64 * 1024 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  static char out[SIZE], in[SIZE];
  long blocks = argc > 1 ? atol(argv[1]) : 16384;
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 1;
  memset(out, 'x', SIZE);
  double start = now();
  for (long i = 0; i < blocks; i++) {
    for (size_t sent = 0; sent < SIZE;) {
      ssize_t n = send(pair[0], out + sent, SIZE - sent, MSG_NOSIGNAL);
      if (n < 0) return 1;
      sent += n;
    }
    for (size_t got = 0; got < SIZE;) {
      ssize_t n = recv(pair[1], in + got, SIZE - got, 0);
      if (n <= 0) return 1;
      got += n;
    }
  }
  printf("%.6f\n", now() - start);
  return 0;
}
