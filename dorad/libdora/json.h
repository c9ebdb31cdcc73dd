/* JSON: read into a tree, whose nodes lie in an arena, and written from one. */

#pragma once

#include <locale.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory that is freed at once. */
struct json_arena {
    struct json_block *blocks;
};

enum json_type { JSON_NULL, JSON_BOOL, JSON_INT, JSON_FLOAT, JSON_STRING, JSON_LIST, JSON_OBJECT };

struct json {
    enum json_type type;
    const char *key; /* in an object */
    union {
        bool truth;
        int64_t number;
        double real;
        struct {
            const char *at; /* ended by a zero */
            size_t size;
        } string;
        struct {
            struct json *first, *last;
            size_t count;
        } items;
    };
    struct json *next;
};

/* A text that grows; `at` is ended by a zero once something was added. */
struct json_text {
    char *at;
    size_t size, room;
};

/* Return what malloc, calloc or realloc have returned; end the process if it has no memory. */
void *must(void *memory);
char *copy_text(const char *text, size_t size);

void *json_allocate(struct json_arena *arena, size_t size);
void json_free(struct json_arena *arena);
/* Read a value; NULL if the text is no JSON, or nested too deeply. Lone surrogates become U+FFFD. */
struct json *json_read(struct json_arena *arena, const char *text, size_t size);
struct json *json_new(struct json_arena *arena, enum json_type type);
/* Add an item to a list, or to an object under its key. */
void json_add(struct json *to, struct json *item);

struct json *json_get(const struct json *object, const char *key);
/* Return a string; NULL if there is none under this key. */
const char *json_string(const struct json *object, const char *key);
/* Get a number that is not negative. */
bool json_count(const struct json *object, const char *key, uint64_t *number);
bool json_true(const struct json *object, const char *key);

/* Return a locale to read and write numbers in: that of the program must not decide. */
locale_t plain_locale(void);
void text_add(struct json_text *text, const char *data, size_t size);
void text_put(struct json_text *text, const char *string);
void text_number(struct json_text *text, int64_t number);
/* Add a string in quotes. */
void text_quote(struct json_text *text, const char *data, size_t size);
void json_write(struct json_text *text, const struct json *value);
