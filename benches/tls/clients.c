// Clients that do TLS 1.3 handshakes, by OpenSSL.
// Usage: clients full|resumed PORT PROCESSES SECONDS: each process connects, does a handshake, makes a request, and
//   closes, again and again; with "resumed" by the ticket of the last session. Prints how many were done in all, and how
//   many of them resumed a session.
// Usage: clients idle PORT COUNT: so many connections make a request each and stay: prints READY, and waits for a
//   signal to end it.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static SSL_CTX *context;
static SSL_SESSION *last;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what) {
  perror(what);
  exit(1);
}

// Tickets come after the handshake, with the response.
static int keep(SSL *ssl, SSL_SESSION *session) {
  (void)ssl;
  SSL_SESSION_free(last);
  last = session;
  return 1;
}

static SSL *handshake(int port) {
  struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port) };
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  SSL *ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  SSL_set_tlsext_host_name(ssl, "localhost");
  if (last) SSL_set_session(ssl, last);
  if (SSL_connect(ssl) != 1) fail("SSL_connect");
  return ssl;
}

static void ask(SSL *ssl, int closes) {
  char text[4096];
  int length = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n",
    closes ? "Connection: close\r\n" : "");
  if (SSL_write(ssl, text, length) != length) fail("SSL_write");
  int got = SSL_read(ssl, text, sizeof text);
  if (got < 12 || memcmp(text, "HTTP/1.1 200", 12)) fail("response");
  while (closes && SSL_read(ssl, text, sizeof text) > 0) {}
}

// A process that goes on until `end`; writes what it has done to a pipe.
static void run(int port, double end, int out) {
  int counts[2] = { 0, 0 };
  do {
    SSL *ssl = handshake(port);
    counts[1] += SSL_session_reused(ssl);
    counts[0]++;
    ask(ssl, 1);
    SSL_shutdown(ssl);
    int fd = SSL_get_fd(ssl);
    SSL_free(ssl);
    close(fd);
  } while (now() < end);
  if (write(out, counts, sizeof counts) != sizeof counts) fail("write");
  exit(0);
}

static void measure(int port, int processes, double seconds) {
  int ends[2], sums[2] = { 0, 0 }, counts[2];
  if (pipe(ends) < 0) fail("pipe");
  double begun = now();
  for (int i = 0; i < processes; i++) {
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) run(port, begun + seconds, ends[1]);
  }
  for (int i = 0; i < processes; i++) {
    if (read(ends[0], counts, sizeof counts) != sizeof counts) fail("read");
    sums[0] += counts[0];
    sums[1] += counts[1];
  }
  printf("%d %d %.6f\n", sums[0], sums[1], now() - begun);
}

static void stay(int port, int count) {
  for (int i = 0; i < count; i++) {
    SSL *ssl = handshake(port);
    ask(ssl, 0);
  }
  printf("READY\n");
  fflush(stdout);
  pause();
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  if (!strcmp(argv[1], "resumed")) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep);
  }
  if (!strcmp(argv[1], "idle")) stay(atoi(argv[2]), atoi(argv[3]));
  else if (argc < 5) return 2;
  else measure(atoi(argv[2]), atoi(argv[3]), atof(argv[4]));
  return 0;
}
