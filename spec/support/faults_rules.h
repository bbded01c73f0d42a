/* The rules of faults.lua, the memory in which they are, and what they do to a call. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum action { FAIL = 1, BLOCK, SIGNAL, RESULT, SHORTEN, REDIRECT };
enum process { SUPERVISOR = 1, WORKER = 2 };
enum condition { ON_FD = 1, ON_REQUEST = 2, ON_DESCRIPTORS = 4 };

/* The layout is known to faults.lua. */
struct rule {
  uint32_t active; /* written last by the spec */
  uint32_t processes, action, conditions;
  uint64_t serial; /* no two rules of a run have the same */
  int64_t value;   /* errno, milliseconds (0: for ever), signal, result, or size */
  int64_t fd, request, size;
  uint64_t skip, count;  /* the calls to let pass first, then to strike (0: all) */
  uint64_t seen, struck; /* written here */
  char call[32], path[128], target[128];
};

struct tally {
  char name[32];
  uint64_t calls[2]; /* of the supervisor, of the workers */
};

#define RULES 32
#define CALLS 128

struct shared {
  int32_t starter, supervisor;
  struct rule rules[RULES];
  struct tally tallies[CALLS];
};

/* A function that is wrapped. They lie side by side in a section of their own. */
struct known {
  const char *name;
  void *next;
};
extern struct known __start_known[], __stop_known[];

/* One call, as far as rules look at it. */
struct call {
  struct known *known;
  int fd;
  int64_t request, size;
  int descriptors;
  const char *path;
  /* What a rule has decided. */
  int done, error;
  int64_t result;
  const char *target;
};

static struct shared *shared;

static void *next_of(struct known *known) {
  void *next = __atomic_load_n(&known->next, __ATOMIC_RELAXED);
  if (!next) {
    next = dlsym(RTLD_NEXT, known->name);
    if (!next) abort();
    __atomic_store_n(&known->next, next, __ATOMIC_RELAXED);
  }
  return next;
}

__attribute__((constructor)) static void attach(void) {
  const char *path = getenv("MOONBRIDGE_FAULTS");
  int fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  struct shared *map = mmap(NULL, sizeof *map, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (map == MAP_FAILED) return;
  for (struct known *known = __start_known; known < __stop_known; known++)
    strncpy(map->tallies[known - __start_known].name, known->name, sizeof map->tallies[0].name - 1);
  map->starter = map->supervisor = getpid();
  unsetenv("MOONBRIDGE_FAULTS");
  unsetenv("LD_PRELOAD");
  shared = map;
}

static enum process role(void) {
  pid_t pid = getpid();
  return pid == shared->supervisor || pid == shared->starter ? SUPERVISOR : WORKER;
}

/* Whether the rule's path is part of that of the call, or of what its descriptor is open for. */
static int concerns(const struct rule *rule, const struct call *call) {
  if (!rule->path[0]) return 1;
  if (call->path) return strstr(call->path, rule->path) != NULL;
  char link[32], name[256];
  snprintf(link, sizeof link, "/proc/self/fd/%d", call->fd);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, name, sizeof name - 1);
  if (call->fd < 0 || length < 0) return 0;
  name[length] = 0;
  return strstr(name, rule->path) != NULL;
}

static int applies(const struct rule *rule, const struct call *call, enum process process) {
  return rule->processes & process && !strcmp(rule->call, call->known->name) &&
         (!(rule->conditions & ON_FD) || rule->fd == call->fd) &&
         (!(rule->conditions & ON_REQUEST) || rule->request == call->request) &&
         (!(rule->conditions & ON_DESCRIPTORS) || call->descriptors) && call->size >= rule->size &&
         concerns(rule, call);
}

/* Signals do not end it: neither do they for a process in uninterruptible sleep. */
static void block(const struct rule *rule) {
  uint64_t serial = rule->serial;
  int64_t left = rule->value ? rule->value : INT64_MAX;
  struct timespec pause = {0, 1000000};
  for (; left > 0; left--) {
    if (!__atomic_load_n(&rule->active, __ATOMIC_ACQUIRE) || rule->serial != serial) return;
    syscall(SYS_nanosleep, &pause, NULL);
  }
}

static void strike(struct rule *rule, struct call *call) {
  __atomic_fetch_add(&rule->struck, 1, __ATOMIC_RELAXED);
  switch (rule->action) {
  case FAIL: call->done = 1, call->result = -1, call->error = rule->value; break;
  case RESULT: call->done = 1, call->result = rule->value; break;
  case BLOCK: block(rule); break;
  case SIGNAL: kill(getpid(), rule->value); break;
  case SHORTEN: if (call->size > rule->value) call->size = rule->value; break;
  case REDIRECT: call->target = rule->target; break;
  }
}

/* Applies the rules. Returns whether the call is not to be made, and leaves errno as the caller is to see it. */
static int faulted(struct call *call) {
  if (!shared) return 0;
  int before = errno;
  enum process process = role();
  __atomic_fetch_add(&shared->tallies[call->known - __start_known].calls[process - 1], 1, __ATOMIC_RELAXED);
  for (struct rule *rule = shared->rules; rule < shared->rules + RULES && !call->done; rule++) {
    if (!__atomic_load_n(&rule->active, __ATOMIC_ACQUIRE) || !applies(rule, call, process)) continue;
    uint64_t seen = __atomic_fetch_add(&rule->seen, 1, __ATOMIC_RELAXED);
    if (seen >= rule->skip && (!rule->count || seen - rule->skip < rule->count)) strike(rule, call);
  }
  errno = call->error ? call->error : before;
  return call->done;
}
