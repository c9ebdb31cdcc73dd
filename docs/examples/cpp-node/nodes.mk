CXXFLAGS = -std=c++17 -O2 -Wall -Wextra $(shell pkg-config --cflags dora-node)
LDLIBS = $(shell pkg-config --libs dora-node)
