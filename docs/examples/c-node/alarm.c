/* Prints temperatures, and warns of high ones. */

#include <dora/node_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOT = 25 };

static void show(void *context, void *event)
{
    char *data, text[64], number[16] = {0};
    size_t size;
    read_dora_input_data(event, &data, &size);
    memcpy(number, data, size < sizeof number ? size : sizeof number - 1);
    int degrees = atoi(number);
    if (degrees > HOT) {
        snprintf(text, sizeof text, "%d degrees are too hot", degrees);
        dora_log(context, "warn", strlen("warn"), text, strlen(text));
    } else {
        printf("%d degrees\n", degrees);
    }
}

int main(void)
{
    void *context = init_dora_context_from_env(), *event;
    if (context == NULL)
        return 1; /* the reason was printed */
    while ((event = dora_next_event(context)) != NULL) {
        switch (read_dora_event_type(event)) {
        case DoraEventType_Input:
            show(context, event);
            break;
        case DoraEventType_InputClosed:
            printf("the thermometer has ended\n");
            break;
        default:
            break;
        }
        free_dora_event(event);
    }
    free_dora_context(context);
    return 0;
}
