/* For a program under valgrind: waiting on a ring becomes waiting in poll(2).
 *
 * valgrind runs one thread at a time and lets another go on where it knows that a system call may block. It does not
 * know that of io_uring_enter: a shard that waits for its ring would stop the thread that is about to give it work. So
 * an enter that waits is made three calls, none of which blocks unknown to valgrind: submit, poll the ring, fetch. A ring
 * whose work waits for an enter would never wake that poll, so no ring is made that way.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/syscall.h>

#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long answer;

	__asm__ volatile("syscall"
			 : "=a"(answer)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return answer;
}

long syscall(long number, long a, long b, long c, long d, long e, long f)
{
	long answer;

	if (number == SYS_io_uring_setup)
		((struct io_uring_params *)b)->flags &= ~IORING_SETUP_DEFER_TASKRUN;
	if (number == SYS_io_uring_enter && c > 0) {
		struct pollfd ring = { .fd = (int)a, .events = POLLIN };

		answer = call(number, a, b, 0, d | (long)IORING_ENTER_GETEVENTS, e, f);
		if (answer >= 0) {
			poll(&ring, 1, -1);
			call(number, a, 0, 0, (long)IORING_ENTER_GETEVENTS, 0, 0);
		}
	} else {
		answer = call(number, a, b, c, d, e, f);
	}
	if (answer < 0 && answer > -4096) {
		errno = (int)-answer;
		return -1;
	}
	return answer;
}
