CFLAGS = -std=c11 -O2 -Wall -Wextra $(shell pkg-config --cflags dora-node)
LDLIBS = $(shell pkg-config --libs dora-node)
