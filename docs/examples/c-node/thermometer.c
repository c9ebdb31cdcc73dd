/* Sends five temperatures, one a tick, as text. */

#include <dora/node_api.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    void *context = init_dora_context_from_env(), *event;
    if (context == NULL)
        return 1; /* the reason was printed */
    int degrees = 18, failed = 0;
    while (degrees <= 26 && !failed && (event = dora_next_event(context)) != NULL) {
        if (read_dora_event_type(event) == DoraEventType_Input) {
            char text[16];
            int length = snprintf(text, sizeof text, "%d", degrees);
            failed = dora_send_output(context, "degrees", strlen("degrees"), text, (size_t)length);
            degrees += 2;
        }
        free_dora_event(event);
    }
    free_dora_context(context);
    return failed != 0;
}
