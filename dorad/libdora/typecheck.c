/* Check messages against the types of inputs and outputs; see dorad/node/typecheck.py and
   dorad/node/typeshapes.py. The daemon sends the types as shapes: the name of an Arrow type,
   {"list": shape}, or {"fields": [[name, shape, nullable], ...]}. */

#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VARIABLE "DORA_RUNTIME_TYPE_CHECK"
#define MAX_WARNINGS 100 /* different ones about one output or edge */

/* The check of one output, or of one edge at its input. */
struct type_check {
    const struct json *port;
    char *sender, *receiver;
    struct names warned;
};

struct type_checks {
    bool outputs, error, first, every, correlated;
    const struct json *inputs;
    struct type_check **sent; /* of the context's outputs, by their place; NULL without a type */
};

/* -- the setting ------------------------------------------------------------------------------- */

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

/* Read the words of the environment's variable; false if one is unknown. */
static bool parse_setting(struct type_checks *checks, const char *text)
{
    static const char *const on[] = {"1", "true", "warn", NULL};
    static const char *const off[] = {"", "0", "false", "off", NULL};
    for (const char *at = text, *end; at != NULL; at = end == NULL ? NULL : end + 1) {
        char word[16] = "";
        size_t used = 0;
        end = strchr(at, ',');
        for (const char *each = at; *each != 0 && each != end; each++)
            if (*each != ' ' && *each != '\t' && used < sizeof word - 1)
                word[used++] = *each >= 'A' && *each <= 'Z' ? (char)(*each + 32) : *each;
        if (is_one_of(word, on))
            checks->outputs = true;
        else if (strcmp(word, "error") == 0)
            checks->outputs = checks->error = true;
        else if (strcmp(word, "first") == 0)
            checks->first = true;
        else if (strcmp(word, "every") == 0)
            checks->every = true;
        else if (strcmp(word, "patterns") == 0)
            checks->correlated = true;
        else if (!is_one_of(word, off)) {
            fail(VARIABLE "=%s: `%s` is not understood; write `warn` or `error`, then perhaps "
                          "`first` or `every`, and `patterns`: `error,first`",
                 text, word);
            return false;
        }
    }
    if (checks->first && checks->every)
        fail(VARIABLE "=%s: `first` and `every` exclude each other", text);
    return !(checks->first && checks->every);
}

static struct type_check *check_new(const struct json *port, const char *sender,
                                    const char *receiver)
{
    struct type_check *check = must(calloc(1, sizeof *check));
    check->port = port;
    check->sender = copy_text(sender, strlen(sender));
    check->receiver = copy_text(receiver, strlen(receiver));
    return check;
}

void type_check_free(struct type_check *check)
{
    if (check == NULL)
        return;
    names_free(&check->warned);
    free(check->sender);
    free(check->receiver);
    free(check);
}

void types_free(struct context *context)
{
    if (context->types == NULL)
        return;
    for (size_t at = 0; at < context->output_count; at++)
        type_check_free(context->types->sent[at]);
    free(context->types->sent);
    free(context->types);
}

static struct type_check *output_check(struct context *context, const struct json *port,
                                       const char *output)
{
    struct json_text sender = {0}, to = {0};
    const struct json *receivers = json_get(port, "to");
    text_put(&sender, context->node_id);
    text_put(&sender, "/");
    text_put(&sender, output);
    text_put(&to, "");
    if (receivers != NULL && receivers->type == JSON_LIST)
        for (const struct json *each = receivers->items.first; each != NULL; each = each->next)
            if (each->type == JSON_STRING) {
                text_put(&to, to.size > 0 ? ", " : "");
                text_put(&to, each->string.at);
            }
    struct type_check *check = check_new(port, sender.at, to.at == NULL ? "" : to.at);
    free(sender.at);
    free(to.at);
    return check;
}

bool types_read(struct context *context)
{
    const struct json *types = json_get(context->config, "types");
    const struct json *outputs = json_get(types, "outputs");
    const char *setting = getenv(VARIABLE);
    if (types == NULL || types->type != JSON_OBJECT)
        return true;
    struct type_checks *checks = must(calloc(1, sizeof *checks));
    checks->inputs = json_get(types, "inputs");
    checks->sent = must(calloc(context->output_count + 1, sizeof *checks->sent));
    context->types = checks;
    if (!parse_setting(checks, setting == NULL ? "" : setting))
        return false;
    for (size_t at = 0; checks->outputs && at < context->output_count; at++) {
        const struct json *port = json_get(outputs, context->outputs[at].id);
        if (port != NULL)
            checks->sent[at] = output_check(context, port, context->outputs[at].id);
    }
    return true;
}

bool types_begin(struct context *context, struct input *input)
{
    const struct json *port =
        context->types == NULL ? NULL : json_get(context->types->inputs, input->id);
    if (port == NULL)
        return true;
    const char *from = json_string(port, "from"), *origin = input->origin;
    struct json_text receiver = {0};
    text_put(&receiver, context->node_id);
    text_put(&receiver, "/");
    text_put(&receiver, input->id);
    bool same = from != NULL && (origin == NULL || (strncmp(from, origin, strlen(origin)) == 0 &&
                                                    from[strlen(origin)] == '/'));
    input->check = check_new(port, same || origin == NULL ? (from ? from : "?") : origin, receiver.at);
    free(receiver.at);
    return true;
}

static void describe(const struct type_check *check, const struct mismatch *wrong, char *into,
                     size_t size)
{
    const char *type = json_string(check->port, "type");
    snprintf(into, size, "type mismatch: %s -> %s: not %s: %s%s%sexpected %s, found %s",
             check->sender, *check->receiver ? check->receiver : "no receiver", type ? type : "?",
             wrong->field[0] ? "field `" : "", wrong->field, wrong->field[0] ? "`: " : "",
             wrong->expected, wrong->actual);
}

/* Log a text, each one only once. */
static void warn(const struct context *context, struct type_check *check, const char *text)
{
    if (check->warned.count < MAX_WARNINGS && name_add(&check->warned, text))
        log_text(context, "warn", "%s", text);
}

/* -- the checks -------------------------------------------------------------------------------- */

void check_received(struct context *context, struct input *input, struct event *event)
{
    struct type_check *check = input->check;
    struct ArrowSchema schema;
    struct ArrowArray array;
    struct mismatch wrong;
    char text[900];
    if (event->entry.flags & CORRELATED && !context->types->correlated)
        return;
    if (format_decode(event, &schema, &array) < 0) {
        snprintf(text, sizeof text, "the type of input `%s` cannot be checked: %s", input->id,
                 last_error());
        warn(context, check, text);
    } else {
        if (shapes_differ(check->port, &schema, &array, &wrong)) {
            describe(check, &wrong, text, sizeof text);
            warn(context, check, text);
        }
        array.release(&array);
        schema.release(&schema);
    }
    if (!context->types->every) {
        type_check_free(check);
        input->check = NULL;
    }
}

static void keep(struct ArrowSchema *schema)
{
    (void)schema;
}

int check_sent(struct context *context, const struct output *output,
               const struct ArrowSchema *schema, const struct ArrowArray *array,
               const DoraMetadata *metadata)
{
    const struct ArrowSchema bytes = {.format = "C", .name = "", .release = keep};
    const struct ArrowArray none = {0};
    struct type_checks *checks = context->types;
    struct type_check **place = checks == NULL ? NULL : &checks->sent[output - context->outputs];
    struct mismatch wrong;
    char text[900];
    if (place == NULL || *place == NULL)
        return 0;
    const struct json *object = metadata == NULL ? NULL : metadata->object;
    bool correlated = json_get(object, "request_id") != NULL ||
                      json_get(object, "goal_id") != NULL ||
                      json_get(object, "goal_status") != NULL;
    if (correlated && !checks->correlated)
        return 0;
    bool is_wrong = shapes_differ((*place)->port, schema == NULL ? &bytes : schema,
                                  schema == NULL ? &none : array, &wrong);
    if (is_wrong)
        describe(*place, &wrong, text, sizeof text);
    if (is_wrong && checks->error)
        return fail("%s", text);
    if (is_wrong)
        warn(context, *place, text);
    /* A refused message is not sent, so the next one is still the first. */
    if (checks->first) {
        type_check_free(*place);
        *place = NULL;
    }
    return 0;
}
