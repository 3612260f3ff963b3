#include "../core/sys.h"
#include "hold.h"
long em_uring_call(struct em_regs *r){const long*a=r->arg;return em_syscall6(r->nr,a[0],a[1],a[2],a[3],a[4],a[5]);}
