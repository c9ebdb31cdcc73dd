/* Texts that grow, JSON that is written, and lists of names. */

#include "node.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *must(void *memory)
{
    if (memory == NULL) {
        fputs("libdora_node: out of memory\n", stderr);
        abort();
    }
    return memory;
}

char *copy_text(const char *text, size_t size)
{
    char *copy = must(malloc(size + 1));
    if (size > 0)
        memcpy(copy, text, size);
    copy[size] = 0;
    return copy;
}

/* -- JSON -------------------------------------------------------------------------------------- */

void text_add(struct json_text *text, const char *data, size_t size)
{
    if (text->room - text->size <= size || text->at == NULL) {
        text->room = (text->size + size + 1) * 2;
        text->at = must(realloc(text->at, text->room));
    }
    if (size > 0)
        memcpy(text->at + text->size, data, size);
    text->size += size;
    text->at[text->size] = 0;
}

void text_put(struct json_text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

void text_number(struct json_text *text, int64_t number)
{
    char digits[24];
    text_add(text, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)number));
}

void text_quote(struct json_text *text, const char *data, size_t size)
{
    text_put(text, "\"");
    for (size_t at = 0; at < size; at++) {
        char c = data[at];
        if (c == '"' || c == '\\') {
            char escaped[2] = {'\\', c};
            text_add(text, escaped, 2);
        } else if ((unsigned char)c < ' ') {
            char escaped[8];
            text_add(text, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", c));
        } else {
            text_add(text, &c, 1);
        }
    }
    text_put(text, "\"");
}

locale_t plain_locale(void)
{
    static locale_t plain;
    if (plain == (locale_t)0)
        plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return plain;
}

/* Write the shortest digits that are read as the same number, and as no int. */
static void write_float(struct json_text *text, double real)
{
    if (isnan(real) || isinf(real)) {
        text_put(text, isnan(real) ? "NaN" : real > 0 ? "Infinity" : "-Infinity");
        return;
    }
    char digits[40];
    locale_t before = uselocale(plain_locale());
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, real);
        if (strtod(digits, NULL) == real)
            break;
    }
    uselocale(before);
    text_put(text, digits);
    if (strpbrk(digits, ".e") == NULL)
        text_put(text, ".0");
}

void json_write(struct json_text *text, const struct json *value)
{
    switch (value->type) {
    case JSON_NULL:
        text_put(text, "null");
        break;
    case JSON_BOOL:
        text_put(text, value->truth ? "true" : "false");
        break;
    case JSON_INT:
        text_number(text, value->number);
        break;
    case JSON_FLOAT:
        write_float(text, value->real);
        break;
    case JSON_STRING:
        text_quote(text, value->string.at, value->string.size);
        break;
    case JSON_LIST:
    case JSON_OBJECT:
        text_put(text, value->type == JSON_LIST ? "[" : "{");
        for (const struct json *each = value->items.first; each != NULL; each = each->next) {
            if (each != value->items.first)
                text_put(text, ",");
            if (value->type == JSON_OBJECT) {
                text_quote(text, each->key, strlen(each->key));
                text_put(text, ":");
            }
            json_write(text, each);
        }
        text_put(text, value->type == JSON_LIST ? "]" : "}");
        break;
    }
}

/* -- names ------------------------------------------------------------------------------------- */

char **name_in(const struct names *names, const char *name)
{
    for (size_t at = 0; at < names->count; at++)
        if (strcmp(names->at[at], name) == 0)
            return &names->at[at];
    return NULL;
}

bool name_add(struct names *names, const char *name)
{
    if (name_in(names, name) != NULL)
        return false;
    names->at = must(realloc(names->at, (names->count + 1) * sizeof *names->at));
    names->at[names->count++] = copy_text(name, strlen(name));
    return true;
}

bool name_remove(struct names *names, const char *name)
{
    char **place = name_in(names, name);
    if (place == NULL)
        return false;
    free(*place);
    *place = names->at[--names->count];
    return true;
}

void names_free(struct names *names)
{
    for (size_t at = 0; at < names->count; at++)
        free(names->at[at]);
    free(names->at);
}
