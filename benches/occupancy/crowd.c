/* Many clients at once, from one process, to see what they cost the server and each other.
 *
 *   crowd idle    PORT COUNT   each makes one request and keeps its connection; on SIGUSR1 each speaks
 *                              once more, in random order, 2000 a second
 *   crowd dribble PORT COUNT   each sends a request head byte by byte, one a second, without end
 *   crowd silent  PORT COUNT   each connects and says nothing
 *   crowd deaf    PORT COUNT   each asks for a MiB and takes a KiB of it every second, without end: the
 *                              next one when it has all
 *   crowd posts   PORT COUNT   COUNT times a second one connects, announces a body of 10 bytes, sends none
 *                              of it, and closes a second later
 *   crowd heads   PORT COUNT   each sends 15,000 bytes of a request head and says nothing more
 *   crowd bodies  PORT COUNT   each sends a form of 1,000 bytes to /upload, a byte a second, without end
 *
 * Prints "READY seconds" when all are connected (idle: and answered), and after a round
 * "SPOKEN answered lost p50_ms p99_ms max_ms"; on SIGUSR1 to clients that dribble "SENT n": how many bytes
 * they have sent since the last time. Ends on SIGTERM with "CLOSED n": how many connections the server
 * closed. Linux only.
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OPENING = 256, RATE = 2000, TIMEOUT = 30 };

struct client {
  int fd;        /* -1: closed by the server */
  int sent;      /* bytes of the endless head */
  double asked;  /* when it spoke, 0: it waits for nothing */
};

static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
static const char BIG[] = "GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n";
static const char POST[] = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n";
static const char FORM[] = "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                           "Content-Type: application/x-www-form-urlencoded\r\n\r\n";
static const char HEAD[] = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";

static struct client *clients;
static double *latencies;
static int count, closed, epoll, answered, deaf, bytes_sent;
static struct sockaddr_in address;
static volatile sig_atomic_t speak, stopped;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void on_signal(int signal) {
  if (signal == SIGUSR1) speak = 1;
  else stopped = 1;
}

static void drop(struct client *client) {
  close(client->fd);
  client->fd = -1;
  client->asked = 0;
  closed++;
}

static void dial(int index) {
  struct client *client = &clients[index];
  client->fd = socket(AF_INET, SOCK_STREAM, 0);
  /* Little of a response that nobody reads is to be in the system: small segments, a small window. */
  int window = 4096, segment = 1024;
  if (deaf) {
    setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
    setsockopt(client->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
  }
  if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&address, sizeof address) < 0) {
    perror("connect");
    exit(1);
  }
  if (deaf) {
    send(client->fd, BIG, sizeof BIG - 1, MSG_NOSIGNAL);
    return;
  }
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.u32 = index};
  epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event);
}

static void ask(struct client *client) {
  if (client->fd < 0) return;
  client->asked = now();
  if (send(client->fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) < 0) drop(client);
}

/* Takes what the server says for up to `wait` milliseconds. A small response arrives in one piece. */
static void listen_for(int wait) {
  struct epoll_event events[256];
  int ready = epoll_wait(epoll, events, 256, wait);
  for (int i = 0; i < ready; i++) {
    struct client *client = &clients[events[i].data.u32];
    char bytes[4096];
    ssize_t size = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN)) {
      drop(client);
    } else if (size > 0 && client->asked > 0) {
      latencies[answered++] = now() - client->asked;
      client->asked = 0;
    }
  }
}

static int ascending(const void *a, const void *b) {
  double difference = *(const double *)a - *(const double *)b;
  return (difference > 0) - (difference < 0);
}

static void round_of_talk(void) {
  int *order = malloc(sizeof(int) * count);
  for (int i = 0; i < count; i++) order[i] = i;
  for (int i = count - 1; i > 0; i--) {
    int j = rand() % (i + 1), other = order[i];
    order[i] = order[j];
    order[j] = other;
  }
  answered = 0;
  double start = now();
  for (int next = 0; !stopped && answered < count && now() - start < TIMEOUT;) {
    while (next < count && (now() - start) * RATE >= next) ask(&clients[order[next++]]);
    if (next == count && closed + answered >= count) break;
    listen_for(1);
  }
  free(order);
  qsort(latencies, answered, sizeof(double), ascending);
  double p50 = answered ? latencies[answered / 2] : 0, p99 = answered ? latencies[answered * 99 / 100] : 0;
  printf("SPOKEN %d %d %.3f %.3f %.3f\n", answered, count - answered, p50 * 1e3, p99 * 1e3,
         answered ? latencies[answered - 1] * 1e3 : 0);
}

static void dial(int index);

/* A hundredth of the crowd every 10 ms: each has its turn once a second. */
static void in_turn(void (*act)(int index)) {
  static int turn;
  double until = now() + 0.01;
  for (int i = turn++ % 100; i < count; i += 100) act(i);
  while (!stopped && !speak && now() < until) listen_for(2);
}

static void say(struct client *client, const char *bytes, int size) {
  if (client->fd < 0) return;
  if (send(client->fd, bytes, size, MSG_NOSIGNAL) < 0) drop(client);
}

static void dribble(int index) {
  struct client *client = &clients[index];
  char byte = client->sent < (int)sizeof HEAD - 1 ? HEAD[client->sent] : 'x';
  client->sent++;
  bytes_sent++;
  say(client, &byte, 1);
}

static void post(int index) {
  if (clients[index].fd >= 0) close(clients[index].fd);
  dial(index);
  say(&clients[index], POST, sizeof POST - 1);
}

/* Each form on a connection of its own: the server may close the last one. */
static void form(int index) {
  struct client *client = &clients[index];
  if (client->fd < 0 || client->sent == 1000) {
    if (client->fd >= 0) close(client->fd);
    dial(index);
    client->sent = 0;
  }
  if (client->sent++ == 0) say(client, FORM, sizeof FORM - 1);
  say(client, "x", 1);
}

/* Lines as long as common limits allow. */
static void half_head(int index) {
  static char head[15001];
  if (!head[0]) {
    int size = sprintf(head, "GET / HTTP/1.1\r\nHost: localhost\r\n");
    while (size < 14000) size += sprintf(head + size, "X-Half: %0*d\r\n", 3500, 0);
    memset(head + size, 'x', 15000 - size);
    head[15000] = 0;
  }
  say(&clients[index], head, 15000);
}

static void take_little(int index) {
  struct client *client = &clients[index];
  char bytes[1024];
  if (client->fd < 0) return;
  ssize_t size = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (size == 0 || (size < 0 && errno != EAGAIN)) { drop(client); return; }
  if (size > 0 && (client->sent += size) >= 1 << 20) {
    client->sent -= 1 << 20;
    say(client, BIG, sizeof BIG - 1);
  }
}

static const struct kind {
  const char *name;
  void (*at_first)(int index), (*each_second)(int index);
} kinds[] = {
  {"idle", NULL, NULL}, {"silent", NULL, NULL}, {"dribble", NULL, dribble}, {"deaf", NULL, take_little},
  {"posts", NULL, post}, {"heads", half_head, NULL}, {"bodies", NULL, form},
};

static const struct kind *kind_of(const char *name) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(name, kinds[i].name)) return &kinds[i];
  fprintf(stderr, "no such crowd: %s\n", name);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 4) { fprintf(stderr, "usage: crowd KIND PORT COUNT\n"); return 1; }
  const struct kind *kind = kind_of(argv[1]);
  int idle = !strcmp(kind->name, "idle");
  deaf = !strcmp(kind->name, "deaf");
  count = atoi(argv[3]);
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2])),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct rlimit limit = {count + 64, count + 64};
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  clients = calloc(count, sizeof *clients);
  latencies = calloc(count + 1, sizeof *latencies);
  epoll = epoll_create1(0);
  signal(SIGUSR1, on_signal);
  signal(SIGTERM, on_signal);
  setvbuf(stdout, NULL, _IOLBF, 0);

  double start = now();
  for (int i = 0; i < count && !stopped; i++) {
    dial(i);
    if (idle) ask(&clients[i]);
    if (kind->at_first) kind->at_first(i);
    /* Not more at once than a backlog takes. */
    while (idle && !stopped && i + 1 - answered - closed >= OPENING) listen_for(1);
    if (!idle && i % OPENING == 0) listen_for(1);
  }
  while (idle && !stopped && answered + closed < count && now() - start < 2 * TIMEOUT) listen_for(10);
  printf("READY %.2f\n", now() - start);

  while (!stopped) {
    if (speak) {
      speak = 0;
      if (idle) round_of_talk();
      else printf("SENT %d\n", bytes_sent);
      bytes_sent = 0;
    } else if (kind->each_second) {
      in_turn(kind->each_second);
    } else {
      listen_for(100);
    }
  }
  printf("CLOSED %d\n", closed);
  return 0;
}
