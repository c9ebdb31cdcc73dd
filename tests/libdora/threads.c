/* Takes messages in one thread; four others read and free them, also after the context is freed. */

#include <dora/node_api.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROOM = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static void *queue[ROOM];
static int count;
static bool over;

static void *work(void *bad)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        while (count == 0 && !over)
            pthread_cond_wait(&changed, &lock);
        void *event = count > 0 ? queue[--count] : NULL;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        if (event == NULL)
            return NULL;
        struct ArrowSchema schema;
        struct ArrowArray array;
        if (dora_event_arrow(event, &schema, &array) == 0) {
            int64_t first, each;
            const char *values = array.buffers[1];
            free_dora_event(event); /* the array outlives it */
            memcpy(&first, values, sizeof first);
            for (int64_t at = 0; at + 8 <= array.length; at += 8) {
                memcpy(&each, values + at, sizeof each);
                *(int *)bad += each != first;
            }
            array.release(&array);
            schema.release(&schema);
        } else {
            *(int *)bad += 1;
            free_dora_event(event);
        }
    }
}

int main(void)
{
    void *context = init_dora_context_from_env(), *event;
    pthread_t threads[THREADS];
    int bad[THREADS] = {0}, taken = 0, torn = 0;
    if (context == NULL)
        return 1;
    for (int at = 0; at < THREADS; at++)
        pthread_create(&threads[at], NULL, work, &bad[at]);
    while ((event = dora_next_event(context)) != NULL) {
        if (read_dora_event_type(event) != DoraEventType_Input) {
            free_dora_event(event);
            continue;
        }
        taken++;
        pthread_mutex_lock(&lock);
        while (count == ROOM)
            pthread_cond_wait(&changed, &lock);
        queue[count++] = event;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    free_dora_context(context);
    pthread_mutex_lock(&lock);
    over = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    for (int at = 0; at < THREADS; at++) {
        pthread_join(threads[at], NULL);
        torn += bad[at];
    }
    printf("taken %d, bad %d\n", taken, torn);
    return 0;
}
