/* Loaded into a server (LD_PRELOAD): sets the clock of the server ahead of the clock of the machine. The number of
   seconds stands in a file of eight bytes, which may change at any time. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("DOVETAIL_TEST_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) ahead = map;
    if (file >= 0) close(file);
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
    int answer = (int)syscall(SYS_gettimeofday, tv, tz);
    if (tv && ahead) tv->tv_sec += *ahead;
    return answer;
}

int clock_gettime(clockid_t clock, struct timespec *ts) {
    int answer = (int)syscall(SYS_clock_gettime, clock, ts);
    if (answer == 0 && ahead && clock == CLOCK_REALTIME) ts->tv_sec += *ahead;
    return answer;
}

time_t time(time_t *to) {
    time_t now = (time_t)syscall(SYS_time, NULL) + (ahead ? *ahead : 0);
    if (to) *to = now;
    return now;
}
