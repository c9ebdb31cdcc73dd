/* How long a receiver spins before it blocks: `Spin` of dorad/shm/spin.py. */

#include "core.h"

void dora_spin_found(struct dora_spin *spin)
{
    spin->budget_ns = spin->limit_ns;
    spin->penalty = 1;
}

void dora_spin_blocked(struct dora_spin *spin, int64_t waited_ns)
{
    if (spin->budget_ns) {
        spin->budget_ns /= 2;
        if (spin->budget_ns < spin->limit_ns / 8) {
            spin->budget_ns = 0;
            spin->cooldown = spin->penalty;
            spin->penalty = spin->penalty * 2 < MAX_COOLDOWN ? spin->penalty * 2 : MAX_COOLDOWN;
        }
    } else if (waited_ns < WOULD_HAVE_PAID_NS) {
        if (spin->cooldown > 0)
            spin->cooldown--;
        else
            spin->budget_ns = spin->limit_ns;
    }
}
