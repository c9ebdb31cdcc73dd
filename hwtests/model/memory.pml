/* Shared memory as x86-64 gives it (x86-TSO): every process has a FIFO store buffer.
 *
 * A store enters the writer's buffer and reaches memory later, at a moment of the machine's
 * choosing and in the order it was issued. A load reads memory. A fence waits until the
 * writer's own buffer is empty. So the only thing that can be seen out of order is a load that
 * overtakes an earlier store of the same process: exactly what the protocol's fences forbid.
 *
 * Comments beside the steps name the order that each has in C11, in dorad/shm/native; where they
 * name none, it is relaxed. FENCE is `atomic_thread_fence(memory_order_seq_cst)`. On x86-64 the
 * weaker orders only bind the compiler: only the fences are more than plain loads and stores.
 *
 * On real hardware a process also sees its own buffered stores. Nothing here needs that: every
 * word has one writer, which keeps its last value in its own variable.
 */

byte mem[WORDS];
chan buffer[PROCESSES] = [BUFFER_DEPTH] of { byte, byte };   /* word, value */

#define STORE(me, word, value)  buffer[me]!word,value
#define FENCE(me)               empty(buffer[me])

#define DRAIN(who)  d_step { buffer[who]?word,value -> mem[word] = value; word = 0; value = 0 }

proctype Memory()
{
    byte word, value;

end_memory:
    do
    :: DRAIN(0)
    :: DRAIN(1)
#if PROCESSES > 2
    :: DRAIN(2)
#endif
    od
}
