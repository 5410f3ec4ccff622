/* Faults at the file level: loaded into the relay (LD_PRELOAD), it counts what is done to the store's files and makes
   the Nth call end badly, or last until the test lets it go.  The test arms it, while the relay runs, through a file that both have mapped (RELAY_SHIM). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

/* calls: counted since it was armed; at: which call ends badly, 0 for none; how: below; code: errno of a failure; reach:
   0 for writes to the store and its log and their syncs, 1 also for reading, opening and mapping, and all files beside,
   2 for what is drawn from the random source alone. */
static struct control { atomic_long calls, at, how, code, reach; } *control;
enum { KILL_BEFORE = 1, KILL_HALFWAY = 2, KILL_AFTER = 3, FAIL_ONCE = 4, FAIL_FROM_THERE = 5, HOLD = 6, SHORT = 7 };
enum { RANDOM = 2 };

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("RELAY_SHIM");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        control = at == MAP_FAILED ? NULL : at;
        close(file);
    }
}

static int is_store(const char *path) {
    const char *name = strrchr(path, '/');
    if (!name) return 0;
    if (atomic_load(&control->reach)) return !strncmp(name, "/relay.db", 9);
    return !strcmp(name, "/relay.db") || !strcmp(name, "/relay.db-wal");
}

/* What is to happen to this call, or to this one on *path*: 0 for nothing. */
static long count(void) {
    long call = atomic_fetch_add(&control->calls, 1) + 1, at = atomic_load(&control->at), how = atomic_load(&control->how);
    return at && (call == at || (how == FAIL_FROM_THERE && call > at)) ? how : 0;
}

static long judge_path(const char *path) {
    if (!control || !atomic_load(&control->how) || atomic_load(&control->reach) == RANDOM || !is_store(path)) return 0;
    return count();
}

static long judge(int file) {
    char link[64], path[4096];
    if (!control || !atomic_load(&control->how)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return judge_path(path);
}

/* The same for what only a wide reach counts. */
static int is_wide(void) { return control && atomic_load(&control->reach); }
static int fails(long how) { return how == FAIL_ONCE || how == FAIL_FROM_THERE; }

#define AROUND(type, name, parameters, arguments, half)                        \
    type name parameters {                                                     \
        static type (*real) parameters;                                        \
        if (!real) real = dlsym(RTLD_NEXT, #name);                             \
        long how = judge(file);                                                \
        while (how == HOLD && atomic_load(&control->how) == HOLD) usleep(1000); \
        if (how == KILL_BEFORE) kill(0, SIGKILL);                       \
        if (how == KILL_HALFWAY) { (void)(half); kill(0, SIGKILL); }    \
        if (how == SHORT) return half;                                         \
        if (fails(how)) {                                                      \
            errno = (int)atomic_load(&control->code);                          \
            return -1;                                                         \
        }                                                                      \
        type result = real arguments;                                          \
        if (how == KILL_AFTER) kill(0, SIGKILL);                        \
        return result;                                                         \
    }

AROUND(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at), real(file, data, size / 2, at))
AROUND(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at), real(file, data, size / 2, at))
AROUND(ssize_t, write, (int file, const void *data, size_t size), (file, data, size), real(file, data, size / 2))
AROUND(int, fdatasync, (int file), (file), real(file))
AROUND(int, fsync, (int file), (file), real(file))
AROUND(int, ftruncate64, (int file, off64_t size), (file, size), real(file, size))
AROUND(int, ftruncate, (int file, off_t size), (file, size), real(file, size))

ssize_t getrandom(void *data, size_t size, unsigned flags) {
    static ssize_t (*real)(void *, size_t, unsigned);
    if (!real) real = dlsym(RTLD_NEXT, "getrandom");
    int is_counted = control && atomic_load(&control->how) && atomic_load(&control->reach) == RANDOM;
    if (is_counted && fails(count())) { errno = (int)atomic_load(&control->code); return -1; }
    return real(data, size, flags);
}

#define READING(name, off)                                                     \
    ssize_t name(int file, void *data, size_t size, off at) {                  \
        static ssize_t (*real)(int, void *, size_t, off);                      \
        if (!real) real = dlsym(RTLD_NEXT, #name);                             \
        long how = is_wide() ? judge(file) : 0;                                \
        if (fails(how)) { errno = (int)atomic_load(&control->code); return -1; } \
        return real(file, data, how == SHORT ? size / 2 : size, at);           \
    }
READING(pread, off_t)
READING(pread64, off64_t)

#define OPENING(name)                                                          \
    int name(const char *path, int flags, ...) {                               \
        static int (*real)(const char *, int, ...);                            \
        if (!real) real = dlsym(RTLD_NEXT, #name);                             \
        va_list more;                                                          \
        va_start(more, flags);                                                 \
        mode_t mode = va_arg(more, mode_t);                                    \
        va_end(more);                                                          \
        if (fails(is_wide() ? judge_path(path) : 0)) { errno = (int)atomic_load(&control->code); return -1; } \
        return real(path, flags, mode);                                        \
    }
OPENING(open)
OPENING(open64)

#define MAPPING(name, off)                                                     \
    void *name(void *where, size_t size, int may, int flags, int file, off at) { \
        static void *(*real)(void *, size_t, int, int, int, off);              \
        if (!real) real = dlsym(RTLD_NEXT, #name);                             \
        if (file >= 0 && fails(is_wide() ? judge(file) : 0)) {                 \
            errno = (int)atomic_load(&control->code);                          \
            return MAP_FAILED;                                                 \
        }                                                                      \
        return real(where, size, may, flags, file, at);                        \
    }
MAPPING(mmap, off_t)
MAPPING(mmap64, off64_t)
