/* Lets User-Mode Linux 6.1 run on a processor with AMX.
 *
 * It sets its processes' extended registers with PTRACE_SETREGSET(NT_X86_XSTATE) from a buffer of fixed size. Where
 * the host's XSAVE area is larger than that (AMX's tiles alone take 8 KiB), the host's kernel refuses the call and
 * User-Mode Linux dies at its first process. Preloaded, this reads the process's whole area, lays the caller's bytes over
 * its beginning, leaves only the components that the caller knows marked as present, and writes all of it back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define XSTATE_BV_OFFSET 512                /* XSAVE header: which components are present */
#define KNOWN_COMPONENTS UINT64_C(0x2e7)    /* x87, SSE, AVX, AVX-512 (three), PKRU */

typedef long (*ptrace_function)(int, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_function real;
    if (!real)
        real = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");

    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    struct iovec *given = data;
    if (request != PTRACE_SETREGSET || (uintptr_t)address != NT_X86_XSTATE)
        return real(request, pid, address, data);

    static unsigned char area[65536];       /* User-Mode Linux traces from one thread */
    struct iovec whole = { area, sizeof area };
    long result = real(PTRACE_GETREGSET, pid, address, &whole);
    if (result != 0)
        return result;
    if (given->iov_len < whole.iov_len) {
        uint64_t present;
        memcpy(area, given->iov_base, given->iov_len);
        memcpy(&present, area + XSTATE_BV_OFFSET, sizeof present);
        present &= KNOWN_COMPONENTS;
        memcpy(area + XSTATE_BV_OFFSET, &present, sizeof present);
        return real(request, pid, address, &whole);
    }
    return real(request, pid, address, data);
}
