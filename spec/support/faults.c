/* Makes system calls of a program fail or block: loaded by LD_PRELOAD, told what to do by spec/support/faults.lua.
 *
 * The file named by MOONBRIDGE_FAULTS is mapped by the program and all processes that it forks. It holds the
 * rules, which the spec writes at run time, and the tallies, which the processes write. What is executed from
 * there runs without this library. Only calls through the C library's dynamic symbols pass here: those of Rust
 * code and of Lua modules, not those that the C library makes itself (for stdio, `syslog`, the resolver). */

#include "faults_rules.h"

#define KNOWN(name) \
  static struct known known_##name __attribute__((section("known"), used, aligned(16))) = {#name, NULL}
#define NEXT(name) ((__typeof__(&wrapped_##name))next_of(&known_##name))
#define CALL(name, ...) struct call call = {.known = &known_##name, .fd = -1, __VA_ARGS__}

/* A function of the C library that does what it always does, unless a rule says otherwise. */
#define WRAP(type, name, parameters, failed, arguments, ...) \
  KNOWN(name); \
  type wrapped_##name parameters __asm__(#name); \
  type wrapped_##name parameters { \
    CALL(name, __VA_ARGS__); \
    if (faulted(&call)) return failed; \
    return NEXT(name) arguments; \
  }
#define MINUS (call.result)
#define CODE (call.error ? call.error : call.result)

/* Input and output. */
WRAP(ssize_t, read, (int fd, void *to, size_t size), MINUS, (fd, to, call.size), .fd = fd, .size = size)
WRAP(ssize_t, write, (int fd, const void *from, size_t size), MINUS, (fd, from, call.size), .fd = fd, .size = size)
WRAP(ssize_t, readv, (int fd, const void *to, int n), MINUS, (fd, to, n), .fd = fd)
WRAP(ssize_t, writev, (int fd, const void *from, int n), MINUS, (fd, from, n), .fd = fd)
WRAP(ssize_t, recv, (int fd, void *to, size_t size, int flags), MINUS, (fd, to, call.size, flags), .fd = fd,
     .size = size)
WRAP(ssize_t, send, (int fd, const void *from, size_t size, int flags), MINUS, (fd, from, call.size, flags),
     .fd = fd, .size = size)
WRAP(ssize_t, recvfrom, (int fd, void *to, size_t size, int flags, void *address, void *length), MINUS,
     (fd, to, call.size, flags, address, length), .fd = fd, .size = size)
WRAP(ssize_t, sendto, (int fd, const void *from, size_t size, int flags, const void *address, socklen_t length),
     MINUS, (fd, from, call.size, flags, address, length), .fd = fd, .size = size)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), MINUS, (fd, message, flags), .fd = fd,
     .descriptors = message->msg_controllen > 0)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), MINUS, (fd, message, flags), .fd = fd,
     .descriptors = message->msg_controllen > 0)
WRAP(int, fsync, (int fd), MINUS, (fd), .fd = fd)
WRAP(int, close, (int fd), MINUS, (fd), .fd = fd)
WRAP(int, dup, (int fd), MINUS, (fd), .fd = fd)
WRAP(int, dup2, (int fd, int to), MINUS, (fd, to), .fd = fd)
WRAP(int, dup3, (int fd, int to, int flags), MINUS, (fd, to, flags), .fd = fd)
WRAP(int, pipe, (int *fds), MINUS, (fds))
WRAP(int, pipe2, (int *fds, int flags), MINUS, (fds, flags))
WRAP(int, flock, (int fd, int operation), MINUS, (fd, operation), .fd = fd, .request = operation)

/* Sockets. */
WRAP(int, socket, (int family, int type, int protocol), MINUS, (family, type, protocol), .request = family)
WRAP(int, socketpair, (int family, int type, int protocol, int *fds), MINUS, (family, type, protocol, fds),
     .request = family)
WRAP(int, bind, (int fd, const void *address, socklen_t size), MINUS, (fd, address, size), .fd = fd)
WRAP(int, listen, (int fd, int backlog), MINUS, (fd, backlog), .fd = fd)
WRAP(int, accept, (int fd, void *address, void *size), MINUS, (fd, address, size), .fd = fd)
WRAP(int, accept4, (int fd, void *address, void *size, int flags), MINUS, (fd, address, size, flags), .fd = fd)
WRAP(int, shutdown, (int fd, int how), MINUS, (fd, how), .fd = fd, .request = how)
WRAP(int, getsockopt, (int fd, int level, int name, void *value, void *size), MINUS, (fd, level, name, value, size),
     .fd = fd, .request = name)
WRAP(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size), MINUS,
     (fd, level, name, value, size), .fd = fd, .request = name)
WRAP(int, getsockname, (int fd, void *address, void *size), MINUS, (fd, address, size), .fd = fd)
WRAP(int, getpeername, (int fd, void *address, void *size), MINUS, (fd, address, size), .fd = fd)
WRAP(int, getaddrinfo, (const char *host, const char *service, const void *hints, void *found), CODE,
     (host, service, hints, found), .path = host)

KNOWN(connect);
int wrapped_connect(int fd, const struct sockaddr *address, socklen_t size) __asm__("connect");
int wrapped_connect(int fd, const struct sockaddr *address, socklen_t size) {
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  if (address->sa_family == AF_UNIX && size <= sizeof local) memcpy(&local, address, size);
  local.sun_path[sizeof local.sun_path - 1] = 0;
  CALL(connect, .fd = fd, .request = address->sa_family, .path = local.sun_path);
  if (faulted(&call)) return call.result;
  if (call.target) {
    strncpy(local.sun_path, call.target, sizeof local.sun_path - 1);
    address = (struct sockaddr *)&local, size = sizeof local;
  }
  return NEXT(connect)(fd, address, size);
}

/* Readiness. */
WRAP(int, epoll_create1, (int flags), MINUS, (flags))
WRAP(int, epoll_ctl, (int fd, int operation, int about, void *event), MINUS, (fd, operation, about, event), .fd = about,
     .request = operation)
WRAP(int, epoll_wait, (int fd, void *events, int n, int timeout), MINUS, (fd, events, n, timeout), .fd = fd,
     .request = timeout)
WRAP(int, epoll_pwait, (int fd, void *events, int n, int timeout, const sigset_t *set), MINUS,
     (fd, events, n, timeout, set), .fd = fd, .request = timeout)
WRAP(int, poll, (struct pollfd *fds, nfds_t n, int timeout), MINUS, (fds, n, timeout), .request = timeout,
     .fd = n ? fds->fd : -1)
WRAP(int, ppoll, (struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *set), MINUS,
     (fds, n, timeout, set), .fd = n ? fds->fd : -1)
WRAP(int, eventfd, (unsigned value, int flags), MINUS, (value, flags))
WRAP(int, timerfd_create, (int clock, int flags), MINUS, (clock, flags), .request = clock)
WRAP(int, timerfd_settime, (int fd, int flags, const void *value, void *before), MINUS, (fd, flags, value, before),
     .fd = fd)
WRAP(int, signalfd, (int fd, const sigset_t *set, int flags), MINUS, (fd, set, flags), .fd = fd)
WRAP(int, setitimer, (int timer, const void *value, void *before), MINUS, (timer, value, before), .request = timer)

/* Processes. */
WRAP(int, posix_spawn, (pid_t *pid, const char *path, const void *actions, const void *attributes, char *const *argv,
     char *const *environment), CODE, (pid, path, actions, attributes, argv, environment), .path = path)
WRAP(int, posix_spawnp, (pid_t *pid, const char *path, const void *actions, const void *attributes, char *const *argv,
     char *const *environment), CODE, (pid, path, actions, attributes, argv, environment), .path = path)
WRAP(int, execvp, (const char *path, char *const *argv), MINUS, (path, argv), .path = path)
WRAP(int, kill, (pid_t pid, int signal), MINUS, (pid, signal), .request = signal)
WRAP(pid_t, waitpid, (pid_t pid, int *status, int options), MINUS, (pid, status, options), .request = options)
WRAP(pid_t, wait4, (pid_t pid, int *status, int options, void *usage), MINUS, (pid, status, options, usage),
     .request = options)
WRAP(int, waitid, (int type, id_t id, void *info, int options), MINUS, (type, id, info, options), .request = options)
WRAP(int, sigaction, (int signal, const void *action, void *before), MINUS, (signal, action, before), .request = signal)
WRAP(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *before), CODE, (how, set, before), .request = how)
WRAP(int, pthread_create, (void *thread, const void *attributes, void *start, void *argument), CODE,
     (thread, attributes, start, argument))
WRAP(int, sigprocmask, (int how, const sigset_t *set, sigset_t *before), MINUS, (how, set, before), .request = how)
WRAP(int, sigtimedwait, (const sigset_t *set, siginfo_t *info, const struct timespec *timeout), MINUS,
     (set, info, timeout))
WRAP(int, setuid, (uid_t id), MINUS, (id), .request = id)
WRAP(int, setgid, (gid_t id), MINUS, (id), .request = id)
WRAP(int, setgroups, (size_t n, const gid_t *ids), MINUS, (n, ids))
WRAP(int, setpgid, (pid_t pid, pid_t group), MINUS, (pid, group))
WRAP(int, getrlimit, (int resource, void *limit), MINUS, (resource, limit), .request = resource)
WRAP(int, setrlimit, (int resource, const void *limit), MINUS, (resource, limit), .request = resource)
WRAP(int, sched_getaffinity, (pid_t pid, size_t size, void *set), MINUS, (pid, size, set))

static int forks; /* between the program that was started and this process */

KNOWN(fork);
pid_t wrapped_fork(void) __asm__("fork");
pid_t wrapped_fork(void) {
  CALL(fork);
  if (faulted(&call)) return call.result;
  pid_t pid = NEXT(fork)();
  if (pid == 0) forks++;
  return pid;
}

/* A program that makes itself a daemon goes on in its child. */
KNOWN(setsid);
pid_t wrapped_setsid(void) __asm__("setsid");
pid_t wrapped_setsid(void) {
  if (shared && forks == 1 && shared->supervisor == shared->starter) shared->supervisor = getpid();
  CALL(setsid);
  return faulted(&call) ? call.result : NEXT(setsid)();
}

/* Memory. */
WRAP(int, memfd_create, (const char *name, unsigned flags), MINUS, (name, flags), .path = name)
WRAP(int, ftruncate, (int fd, off_t size), MINUS, (fd, size), .fd = fd, .size = size)
WRAP(int, ftruncate64, (int fd, off_t size), MINUS, (fd, size), .fd = fd, .size = size)
WRAP(void *, mmap, (void *at, size_t size, int protection, int flags, int fd, off_t offset), (void *)MINUS,
     (at, size, protection, flags, fd, offset), .fd = fd, .size = size)
WRAP(void *, mmap64, (void *at, size_t size, int protection, int flags, int fd, off_t offset), (void *)MINUS,
     (at, size, protection, flags, fd, offset), .fd = fd, .size = size)
WRAP(int, munmap, (void *at, size_t size), MINUS, (at, size), .size = size)

/* Allocation must not wait for dlsym, which allocates. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
#define ALLOCATES(name, parameters, next, bytes) \
  KNOWN(name); \
  void *wrapped_##name parameters __asm__(#name); \
  void *wrapped_##name parameters { \
    CALL(name, .size = bytes); \
    return faulted(&call) ? NULL : next; \
  }
ALLOCATES(malloc, (size_t size), __libc_malloc(size), size)
ALLOCATES(calloc, (size_t n, size_t size), __libc_calloc(n, size), n *size)
ALLOCATES(realloc, (void *old, size_t size), __libc_realloc(old, size), size)
ALLOCATES(aligned_alloc, (size_t unit, size_t size), __libc_memalign(unit, size), size)

KNOWN(posix_memalign);
int wrapped_posix_memalign(void **to, size_t unit, size_t size) __asm__("posix_memalign");
int wrapped_posix_memalign(void **to, size_t unit, size_t size) {
  CALL(posix_memalign, .size = size);
  void *memory = faulted(&call) ? NULL : __libc_memalign(unit, size);
  if (!memory) return ENOMEM;
  *to = memory;
  return 0;
}

/* Files. */
WRAP(int, unlink, (const char *path), MINUS, (path), .path = path)
WRAP(int, rename, (const char *from, const char *to), MINUS, (from, to), .path = from)
WRAP(int, chdir, (const char *path), MINUS, (path), .path = path)
WRAP(int, chroot, (const char *path), MINUS, (path), .path = path)
WRAP(int, chmod, (const char *path, mode_t mode), MINUS, (path, mode), .path = path)
WRAP(int, chown, (const char *path, uid_t user, gid_t group), MINUS, (path, user, group), .path = path)
WRAP(int, stat64, (const char *path, void *to), MINUS, (path, to), .path = path)
WRAP(int, lstat64, (const char *path, void *to), MINUS, (path, to), .path = path)

static mode_t mode_of(int flags, va_list *rest) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(*rest, mode_t) : 0;
}

#define OPENS(name, first, parameters, arguments) \
  KNOWN(name); \
  int wrapped_##name parameters __asm__(#name); \
  int wrapped_##name parameters { \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = mode_of(flags, &rest); \
    va_end(rest); \
    CALL(first, .path = path, .request = flags); \
    if (faulted(&call)) return call.result; \
    if (call.target) path = call.target; \
    return NEXT(name) arguments; \
  }
/* All four count as "open". */
OPENS(open, open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, open, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPENS(openat64, open, (int at, const char *path, int flags, ...), (at, path, flags, mode))

/* Those with arguments of any kind. */
#define ARGUMENTS(last) \
  va_list rest; \
  va_start(rest, last); \
  long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long); \
  long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long); \
  va_end(rest);

#define CONTROLS(name, first) \
  KNOWN(name); \
  int wrapped_##name(int fd, unsigned long request, ...) __asm__(#name); \
  int wrapped_##name(int fd, unsigned long request, ...) { \
    ARGUMENTS(request) \
    CALL(first, .fd = fd, .request = request); \
    (void)b, (void)c, (void)d, (void)e, (void)f; \
    return faulted(&call) ? call.result : NEXT(name)(fd, request, a); \
  }
CONTROLS(fcntl, fcntl)
CONTROLS(fcntl64, fcntl)
CONTROLS(ioctl, ioctl)

KNOWN(prctl);
int wrapped_prctl(int option, ...) __asm__("prctl");
int wrapped_prctl(int option, ...) {
  ARGUMENTS(option)
  (void)e, (void)f;
  CALL(prctl, .request = option);
  return faulted(&call) ? call.result : NEXT(prctl)(option, a, b, c, d);
}

WRAP(int, pidfd_open, (pid_t pid, unsigned flags), MINUS, (pid, flags))
WRAP(int, pidfd_send_signal, (int fd, int signal, void *info, unsigned flags), MINUS, (fd, signal, info, flags),
     .fd = fd, .request = signal)
WRAP(int, close_range, (unsigned first, unsigned last, int flags), MINUS, (first, last, flags), .request = flags)

/* `syscall(SYS_pidfd_open, …)` counts as "pidfd_open"; one without a name has its number as its request. */
KNOWN(syscall);
long wrapped_syscall(long number, ...) __asm__("syscall");
long wrapped_syscall(long number, ...) {
  ARGUMENTS(number)
  CALL(syscall, .request = number);
  switch (number) {
  case SYS_pidfd_open: call.known = &known_pidfd_open, call.request = 0; break;
  case SYS_pidfd_send_signal: call.known = &known_pidfd_send_signal, call.fd = a, call.request = b; break;
  case SYS_close_range: call.known = &known_close_range, call.request = c; break;
  case SYS_memfd_create: call.known = &known_memfd_create, call.path = (const char *)a, call.request = 0; break;
  }
  return faulted(&call) ? call.result : NEXT(syscall)(number, a, b, c, d, e, f);
}

KNOWN(syslog);
void wrapped_syslog(int priority, const char *format, ...) __asm__("syslog");
void wrapped_syslog(int priority, const char *format, ...) {
  CALL(syslog, .request = priority);
  if (faulted(&call)) return;
  va_list rest;
  va_start(rest, format);
  vsyslog(priority, format, rest);
  va_end(rest);
}
