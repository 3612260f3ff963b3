#include "transfer.h"
long em_aio_call(struct em_regs *r, const struct em_call *c){return em_transfer_whole(r,c,r->arg);}
