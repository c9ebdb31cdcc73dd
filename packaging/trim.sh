#!/bin/sh
# Remove from the environment in $1 (site-packages) the files that neither dorad nor nodes use.
# smoketest.py imports the rest, so the removal of a needed file stops the build.
set -eu
cd "$1"

find . -depth -type d -name tests -exec rm -rf {} +
find . -name '*.pyi' -delete
find . -name '*.pxd' -delete

# pyarrow without its C++ headers, its Cython sources, and: RPC (Flight), cloud storage, HDFS, ORC,
# Substrait plans from Python, CUDA. Arrow, compute, IPC, Parquet, CSV, JSON, datasets stay.
cd pyarrow
rm -rf include includes src ./*.pyx ./*.pxi ./*.cc ./*.h \
    libarrow_flight.so* libarrow_python_flight.so* _flight.* flight.py \
    libarrow_s3.so* _s3fs.* _gcsfs.* _azurefs.* _hdfs.* \
    _orc.* orc.py _dataset_orc.* _substrait.* substrait.py _cuda.* cuda.py gandiva.* jvm.py \
    _pyarrow_cpp_tests.* conftest.py
# A wheel cannot contain symbolic links, so it has these three times; the linker uses `.so.VERSION`.
for library in libarrow_python libarrow_python_parquet_encryption; do
    rm -f $library.so $library.so.*.*
done
cd ..

# numpy's headers and tools for compiling extensions, and its tests.
rm -rf numpy/f2py numpy/_core/include numpy/_core/lib numpy/random/lib numpy/_pyinstaller \
    numpy/_core/_*_tests.* numpy/conftest.py

# SQLite's own programs.
rm -rf apsw/sqlite_extra_binaries

# Pillow reads JPEG, PNG and WebP; without AVIF, fonts and colour profiles.
rm -f PIL/_avif.* PIL/_imagingft.* PIL/_imagingcms.* PIL/_imagingtk.* \
    pillow.libs/libavif-* pillow.libs/libfreetype-* pillow.libs/libharfbuzz-* \
    pillow.libs/libbrotli* pillow.libs/liblcms2-*
