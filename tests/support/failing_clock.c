/* A clock that fails once, in one thread: what the standard library can only answer with a panic.
 *
 * FAILING_THREAD is the name of the thread, as the kernel knows it (15 bytes), FAILING_CLOCK the
 * number of the clock (0: of the wall, 1: monotonic), and FAILING_FROM a file whose existence means:
 * from now on. The log of the panic reads the clock again, and works. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static atomic_int failed;

static int is_due(clockid_t clock) {
    const char *thread = getenv("FAILING_THREAD"), *from = getenv("FAILING_FROM");
    const char *which = getenv("FAILING_CLOCK");
    char name[16] = {0};
    int before = errno;
    int due = thread && from && which && atoi(which) == (int)clock && prctl(PR_GET_NAME, name) == 0 && strcmp(name, thread) == 0
        && access(from, F_OK) == 0;
    errno = before;
    return due && !atomic_exchange(&failed, 1);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!atomic_load(&failed) && is_due(clock)) {
        errno = EINVAL;
        return -1;
    }
    return real(clock, time);
}
