/* Join a dataflow: find its daemon, say hello, take the welcome, wait for the start barrier. */

#include "node.h"

#include <errno.h>
#include <glob.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONFIG (1 << 26)
#define CONNECT_TIMEOUT_NS (30 * DORA_NANOS)
#define FIRST_PAUSE_NS (DORA_NANOS / 20)
#define DEFAULT_PORT 53291

/* After AWAY a restarted daemon may answer soon. */
enum reply { WELCOME, REFUSED, AWAY };

static bool is_spoken(uint64_t version)
{
    return version >= OLDEST_PROTOCOL && version <= PROTOCOL_VERSION;
}

/* Take mailbox, doorbells and configuration. */
static bool take_welcome(struct context *context, struct packet *packet)
{
    int descriptors[4];
    if (!packet_take(packet, descriptors, 4)) {
        fail("the daemon's welcome came without its 4 descriptors");
        return false;
    }
    context->bell = descriptors[1];
    context->space = descriptors[2];
    context->box = mapping_new(descriptors[0], true);
    size_t size;
    context->config_text = read_sealed(descriptors[3], MAX_CONFIG, &size);
    close(descriptors[0]);
    close(descriptors[3]);
    if (context->box == NULL)
        return false;
    if (context->config_text != NULL)
        context->config = json_read(&context->arena, context->config_text, size);
    const char *node_id = json_string(context->config, "node_id");
    if (node_id == NULL) {
        fail("the daemon sent a configuration that is not valid");
        return false;
    }
    uint64_t version = PROTOCOL_VERSION;
    json_count(packet->fields, "version", &version);
    if (context->box->words.count < BOX_WORDS || !is_spoken(version) ||
        dora_load(context->box->words, BOX_MAGIC, memory_order_acquire) != MAGIC ||
        !is_spoken(dora_load(context->box->words, BOX_VERSION, memory_order_relaxed))) {
        fail("the daemon's mailbox is of another version than libdora_node %s; install the same "
             "version of both, and start the dataflow again",
             dora_node_version());
        return false;
    }
    dora_store(context->box->words, BOX_SEEN, 0, memory_order_relaxed);
    context->node_id = copy_text(node_id, strlen(node_id));
    const char *dataflow_id = json_string(context->config, "dataflow_id");
    context->dataflow_id = copy_text(dataflow_id ? dataflow_id : "", strlen(dataflow_id ? dataflow_id : ""));
    return make_waiters(context);
}

static enum reply say_hello(struct context *context, const char *node_id, bool dynamic)
{
    struct json_text hello = {0};
    text_put(&hello, "{\"t\":\"hello\",\"node\":");
    text_quote(&hello, node_id, strlen(node_id));
    text_put(&hello, dynamic ? ",\"dynamic\":true,\"pid\":" : ",\"dynamic\":false,\"pid\":");
    text_number(&hello, getpid());
    text_put(&hello, ",\"version\":");
    text_number(&hello, PROTOCOL_VERSION);
    text_put(&hello, ",\"oldest\":");
    text_number(&hello, OLDEST_PROTOCOL);
    text_put(&hello, "}");
    struct packet packet;
    int got = packet_send(context->socket, hello.at, hello.size);
    free(hello.at);
    if (got == 0)
        got = packet_receive(context->socket, &packet, 0);
    if (got <= 0) {
        fail("the daemon closed the connection before it answered%s%s", got < 0 ? ": " : "",
             got < 0 ? strerror(errno) : "");
        return got == 0 || errno == ECONNRESET || errno == EPIPE ? AWAY : REFUSED;
    }
    enum reply reply = REFUSED;
    const char *error = json_string(packet.fields, "error");
    if (strcmp(packet.kind, "welcome") == 0)
        reply = take_welcome(context, &packet) ? WELCOME : REFUSED;
    else if (strcmp(packet.kind, "refused") == 0)
        fail("%s%s%s", error ? error : "the daemon refuses this node",
             error && strstr(error, "versions of the node API") ? "; this is libdora_node " : "",
             error && strstr(error, "versions of the node API") ? dora_node_version() : "");
    else if (strcmp(packet.kind, "adopted") == 0) {
        fail("the daemon ended before it answered; another one has taken over");
        reply = AWAY;
    } else
        fail("the daemon answered '%s' instead of 'welcome'", packet.kind);
    packet_free(&packet);
    return reply;
}

struct context *context_new(int socket)
{
    struct context *context = must(calloc(1, sizeof *context));
    context->socket = socket;
    context->bell = context->space = context->epoll = context->space_epoll = context->timer = -1;
    context->urgent.last = &context->urgent.first;
    context->endings.last = &context->endings.first;
    context->deferred.last = &context->deferred.first;
    context->last_change = &context->changes;
    return context;
}

/* Connect to a socket, and say hello; NULL after an error. */
static struct context *try_socket(const char *path, const char *node_id, bool dynamic,
                                  enum reply *reply)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *reply = REFUSED;
    if (strlen(path) >= sizeof address.sun_path) {
        fail("the path of the daemon's socket is too long: %s", path);
        return NULL;
    }
    strcpy(address.sun_path, path);
    int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (void *)&address, sizeof address) < 0) {
        *reply = errno == ECONNREFUSED || errno == ENOENT ? AWAY : REFUSED;
        /* As for nodes in Python, whose socket is there before they start. */
        if (errno == ENOENT)
            *reply = REFUSED;
        fail("no daemon answers at %s (%s); is the dataflow still running?", path, strerror(errno));
        if (connection >= 0)
            close(connection);
        return NULL;
    }
    struct context *context = context_new(connection);
    *reply = say_hello(context, node_id, dynamic);
    if (*reply == WELCOME)
        return context;
    daemon_free(context);
    return NULL;
}

static void sleep_ns(int64_t nanos)
{
    struct timespec time = {nanos / DORA_NANOS, nanos % DORA_NANOS};
    nanosleep(&time, NULL);
}

/* Connect to the daemon that has started this process, or to its successor. */
static struct context *reach(const char *path, const char *node_id)
{
    int64_t deadline = dora_monotonic_ns() + CONNECT_TIMEOUT_NS, pause = FIRST_PAUSE_NS;
    enum reply reply;
    struct context *context;
    while ((context = try_socket(path, node_id, false, &reply)) == NULL && reply == AWAY &&
           dora_monotonic_ns() + pause < deadline) {
        sleep_ns(pause);
        pause = pause * 2 < DORA_NANOS ? pause * 2 : DORA_NANOS;
    }
    return context;
}

/* -- the start --------------------------------------------------------------------------------- */

static void lock_memory(struct context *context)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
        return;
    char text[200];
    snprintf(text, sizeof text,
             "its memory cannot be locked (%s): pages may be missing when it is in a hurry",
             strerror(errno));
    note(context, text);
}

static void set_up_spin(struct context *context)
{
    cpu_set_t processors;
    uint64_t micros = SPIN_US;
    /* On a single core, polling keeps the sender from running. */
    if (sched_getaffinity(0, sizeof processors, &processors) == 0 && CPU_COUNT(&processors) == 1)
        micros = 0;
    json_count(context->config, "spin_us", &micros);
    context->spin = (struct dora_spin){.limit_ns = (int64_t)micros * 1000, .penalty = 1};
}

static struct context *join(struct context *context)
{
    const char *folder = getenv("DORA_WRITE_EVENTS_TO");
    if (context == NULL)
        return NULL;
    if (folder != NULL && *folder != 0) {
        fail("DORA_WRITE_EVENTS_TO is set, but nodes in C do not write their events: unset it for "
             "this node, or record the dataflow with `dora record`");
        daemon_free(context);
        return NULL;
    }
    const struct json *inputs = json_get(context->config, "inputs");
    const struct json *outputs = json_get(context->config, "outputs");
    if (inputs == NULL || outputs == NULL || inputs->type != JSON_LIST ||
        outputs->type != JSON_LIST) {
        fail("the daemon sent a configuration without inputs and outputs");
        daemon_free(context);
        return NULL;
    }
    /* Lines that the program prints come out at once, also into a pipe. */
    fflush(stdout);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    context->watched = json_true(context->config, "watched");
    dora_may_be_stepped = json_true(context->config, "stepped");
    if (json_true(context->config, "lock_memory"))
        lock_memory(context);
    set_up_spin(context);
    context->pool.keep = DEFAULT_KEEP;
    json_count(context->config, "keep_bytes", &context->pool.keep);
    for (const struct json *each = outputs->items.first; each != NULL; each = each->next)
        if (each->type == JSON_STRING && find_output(context, each->string.at, each->string.size) == NULL) {
            context->outputs = must(realloc(context->outputs, (context->output_count + 1) *
                                                                  sizeof *context->outputs));
            context->outputs[context->output_count++] =
                (struct output){.id = copy_text(each->string.at, each->string.size),
                                .key = dora_output_key(each->string.at, each->string.size)};
        }
    if (!types_read(context)) {
        daemon_free(context);
        return NULL;
    }
    const struct json *params = json_get(context->config, "params");
    if (params != NULL && params->type == JSON_OBJECT)
        for (const struct json *each = params->items.first; each != NULL; each = each->next)
            set_param(context, each->key, each);
    struct json_text ready = {0};
    text_put(&ready, "{\"t\":\"ready\"}");
    notify(context, &ready);
    free(ready.at);
    while (!context->started && !context->lost)
        wait_for_mail(context, 100);
    if (!context->started) {
        fail("%s", context->fatal != NULL
                       ? context->fatal
                       : "the daemon closed the connection before the dataflow started");
        daemon_free(context);
        return NULL;
    }
    beat(context);
    for (struct json *each = inputs->items.first; each != NULL; each = each->next)
        if (!input_add(context, each)) {
            daemon_free(context);
            return NULL;
        }
    if (json_true(context->config, "dynamic"))
        /* A node started by hand receives only what is sent from now on. */
        discard_queued(context);
    wait_for_turn(context);
    return context;
}

/* -- where the daemon is ----------------------------------------------------------------------- */

struct context *connect_from_env(void)
{
    const char *text = getenv("DORA_NODE_CONFIG");
    if (text == NULL || *text == 0) {
        fail("this process is not part of a dataflow: start it with `dora run`, or call "
             "init_dora_context_from_node_id() with the id of a node declared with `path: dynamic`");
        return NULL;
    }
    struct json_arena arena = {0};
    const struct json *config = json_read(&arena, text, strlen(text));
    const char *node_id = json_string(config, "node_id"), *path = json_string(config, "daemon_socket");
    uint64_t descriptor;
    struct context *context = NULL;
    if (node_id != NULL && json_count(config, "daemon_descriptor", &descriptor)) {
        context = context_new((int)descriptor);
        if (say_hello(context, node_id, false) != WELCOME) {
            daemon_free(context);
            context = NULL;
        }
    } else if (node_id != NULL && path != NULL)
        context = reach(path, node_id);
    else
        fail("DORA_NODE_CONFIG is not a valid node configuration");
    json_free(&arena);
    return join(context);
}

static bool is_private(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == getuid() &&
           (status.st_mode & 077) == 0;
}

/* Write a folder of this user's sockets; see `runtime_dir` of dorad/shm/rendezvous.py. */
static bool own_folder(int which, char *path, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    const struct passwd *user = getpwuid(getuid());
    int used = -1;
    if (which == 0 && runtime != NULL && *runtime != 0)
        used = snprintf(path, size, "%s/dora", runtime);
    else if (which == 1)
        used = snprintf(path, size, "/tmp/dora-%u", (unsigned)getuid());
    else if (which == 2 && user != NULL)
        used = snprintf(path, size, "%s/.local/state/dora/run", user->pw_dir);
    return used > 0 && (size_t)used < size && is_private(path);
}

struct search {
    const char *node_id;
    struct context *context;
    int accepted, tried;
    char refusal[512];
};

static void search_folder(struct search *search, const char *folder, const char *port)
{
    char pattern[256];
    glob_t sockets;
    snprintf(pattern, sizeof pattern, "%s/%s-*.sock", folder, port);
    if (glob(pattern, 0, NULL, &sockets) != 0)
        return;
    for (size_t at = 0; at < sockets.gl_pathc; at++) {
        enum reply reply;
        struct context *context = try_socket(sockets.gl_pathv[at], search->node_id, true, &reply);
        search->tried++;
        if (context == NULL) {
            snprintf(search->refusal, sizeof search->refusal, "%s", last_error());
            continue;
        }
        search->accepted++;
        if (search->context != NULL)
            daemon_free(context);
        else
            search->context = context;
    }
    globfree(&sockets);
}

struct context *connect_by_id(const char *node_id)
{
    const char *port = getenv("DORA_DAEMON_LOCAL_LISTEN_PORT");
    const char *coordinator = getenv("DORA_COORDINATOR_PORT");
    const char *address = getenv("DORA_COORDINATOR_ADDR");
    char usual[16], folder[200], instance[220];
    snprintf(usual, sizeof usual, "%d", DEFAULT_PORT);
    if (port == NULL || *port == 0)
        port = usual;
    bool named = coordinator != NULL && *coordinator != 0 && strcmp(coordinator, "6013") != 0 &&
                 (address == NULL || *address == 0);
    struct search search = {.node_id = node_id};
    for (int which = 0; which < 3; which++) {
        if (!own_folder(which, folder, sizeof folder))
            continue;
        search_folder(&search, folder, port);
        if (named) {
            snprintf(instance, sizeof instance, "%s/%s", folder, coordinator);
            search_folder(&search, instance, port);
        }
    }
    if (!named)
        search_folder(&search, "/run/dorad", port);
    if (search.accepted > 1) {
        daemon_free(search.context);
        fail("%d running dataflows have a node '%s'", search.accepted, node_id);
        return NULL;
    }
    if (search.context == NULL) {
        if (search.tried > 0)
            fail("%s", search.refusal);
        else
            fail("no daemon is running on port %s; start the dataflow first, with `dora run`", port);
    }
    return join(search.context);
}
