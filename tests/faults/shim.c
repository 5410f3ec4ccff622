/* Faults at the file level: loaded into the relay (LD_PRELOAD), it counts what is done to the store's files and makes
   the Nth call end badly, or last until the test lets it go.  The test arms it, while the relay runs, through a file that both have mapped (RELAY_SHIM). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

/* calls: counted since it was armed; at: which call ends badly, 0 for none; how: below; code: errno of a failure. */
static struct control { atomic_long calls, at, how, code; } *control;
enum { KILL_BEFORE = 1, KILL_HALFWAY = 2, KILL_AFTER = 3, FAIL_ONCE = 4, FAIL_FROM_THERE = 5, HOLD = 6 };

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("RELAY_SHIM");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        control = at == MAP_FAILED ? NULL : at;
        close(file);
    }
}

static int is_store(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    const char *name = strrchr(path, '/');
    return name && (!strcmp(name, "/relay.db") || !strcmp(name, "/relay.db-wal"));
}

/* What is to happen to this call: 0 for nothing. */
static long judge(int file) {
    if (!control || !atomic_load(&control->how) || !is_store(file)) return 0;
    long call = atomic_fetch_add(&control->calls, 1) + 1, at = atomic_load(&control->at), how = atomic_load(&control->how);
    return at && (call == at || (how == FAIL_FROM_THERE && call > at)) ? how : 0;
}

#define AROUND(type, name, parameters, arguments, half)                        \
    type name parameters {                                                     \
        static type (*real) parameters;                                        \
        if (!real) real = dlsym(RTLD_NEXT, #name);                             \
        long how = judge(file);                                                \
        while (how == HOLD && atomic_load(&control->how) == HOLD) usleep(1000); \
        if (how == KILL_BEFORE) kill(0, SIGKILL);                       \
        if (how == KILL_HALFWAY) { half; kill(0, SIGKILL); }            \
        if (how == FAIL_ONCE || how == FAIL_FROM_THERE) {                      \
            errno = (int)atomic_load(&control->code);                          \
            return -1;                                                         \
        }                                                                      \
        type result = real arguments;                                          \
        if (how == KILL_AFTER) kill(0, SIGKILL);                        \
        return result;                                                         \
    }

AROUND(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at), real(file, data, size / 2, at))
AROUND(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at), real(file, data, size / 2, at))
AROUND(ssize_t, write, (int file, const void *data, size_t size), (file, data, size), (void)0)
AROUND(int, fdatasync, (int file), (file), (void)0)
AROUND(int, fsync, (int file), (file), (void)0)
AROUND(int, ftruncate64, (int file, off64_t size), (file, size), (void)0)
AROUND(int, ftruncate, (int file, off_t size), (file, size), (void)0)
