"""Sinter through its C interface (include/sinter.h) and ctypes: one model, many shapes."""

import ctypes as c

import ml_dtypes
import numpy as np

DTYPES = {
    1: np.float32, 2: np.float16, 3: ml_dtypes.bfloat16, 4: np.float64, 5: np.int8, 6: np.uint8, 7: np.int16, 8: np.uint16,
    9: np.int32, 10: np.uint32, 11: np.int64, 12: np.uint64, 13: np.bool_, 14: ml_dtypes.int4, 15: ml_dtypes.uint4,
    16: ml_dtypes.int2, 17: ml_dtypes.uint2, 18: ml_dtypes.float8_e4m3fn, 19: ml_dtypes.float8_e4m3fnuz,
    20: ml_dtypes.float8_e5m2, 21: ml_dtypes.float8_e5m2fnuz, 22: ml_dtypes.float4_e2m1fn, 23: ml_dtypes.float8_e8m0fnu,
}
INPUT = 0
ALLOCATOR = c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_char_p, c.POINTER(c.c_int64), c.c_size_t, c.c_size_t)
TO_DEVICE, TO_HOST = 0, 1


class Refused(Exception):
    """A call failed; the text is the library's."""


class Library:
    """The library and one of its devices."""

    def __init__(self, path, device):
        self.lib = c.CDLL(path)
        self.lib.sinter_last_error_message.restype = c.c_char_p
        self.severity(0)
        self.device = c.c_void_p()
        self.call("device_open", device.encode(), c.byref(self.device))
        self.builder = c.c_void_p()
        self.call("builder_create", self.device, c.byref(self.builder))

    def call(self, name, *args):
        if getattr(self.lib, "sinter_" + name)(*args) != 0:
            raise Refused(self.lib.sinter_last_error_message().decode())

    def severity(self, level):
        self.lib.sinter_logger_set_severity(c.c_int32(level))


class Engine:
    """An engine of a model, with a context."""

    def __init__(self, library, model):
        self.library, self.network, self.engine, self.context = library, c.c_void_p(), c.c_void_p(), c.c_void_p()
        call = library.call
        try:
            call("network_create_from_onnx_memory", model, c.c_size_t(len(model)), None, c.byref(self.network))
            call("builder_build_engine", library.builder, self.network, None, c.byref(self.engine))
            call("context_create", self.engine, c.byref(self.context))
        except Refused:
            self.close()
            raise
        self.outputs, self.growing = [], set()
        count = c.c_size_t()
        call("engine_get_tensor_count", self.engine, c.byref(count))
        for i in range(count.value):
            name, mode = c.c_char_p(), c.c_int32()
            call("engine_get_tensor_name", self.engine, c.c_size_t(i), c.byref(name))
            call("engine_get_tensor_mode", self.engine, name, c.byref(mode))
            if mode.value != INPUT:
                dtype = c.c_int32()
                call("engine_get_tensor_dtype", self.engine, name, c.byref(dtype))
                self.outputs.append((bytes(name.value), np.dtype(DTYPES[dtype.value])))

    def close(self):
        for kind, handle in (("context", self.context), ("engine", self.engine), ("network", self.network)):
            getattr(self.library.lib, f"sinter_{kind}_destroy")(handle)

    def _buffer(self, size):
        buffer, address = c.c_void_p(), c.c_void_p()
        # One byte more, so that an empty tensor has an address too.
        self.library.call("buffer_create", self.library.device, c.c_size_t(size + 1), c.byref(buffer))
        self.library.call("buffer_get_address", buffer, c.byref(address), None)
        return buffer, address

    def _copy(self, to, source, size, kind):
        if size:
            self.library.call("device_copy", self.library.device, to, source, c.c_size_t(size), c.c_int32(kind))

    def _shape(self, name):
        dims, rank = (c.c_int64 * 32)(), c.c_size_t()
        self.library.call("context_query_tensor_shape", self.context, name, dims, c.c_size_t(32), c.byref(rank))
        return tuple(dims[: rank.value])

    def _grows(self, name, dtype, buffers):
        """Memory for an output whose shape the data decides; returns a function that gives array and address."""
        held = {}

        def allocate(_, output, dims, rank, size):
            buffer, held["address"] = self._buffer(size)
            held["shape"] = tuple(dims[:rank])
            buffers.append(buffer)
            return held["address"].value

        held["callback"] = ALLOCATOR(allocate)  # Alive as long as the function that is returned.
        self.library.call("context_set_output_allocator", self.context, name, held["callback"], None)
        return lambda: (np.zeros(held["shape"], dtype), held["address"])

    def run(self, inputs):
        """Outputs for a dict of arrays."""
        call, buffers = self.library.call, []
        try:
            for name, x in inputs.items():
                x = np.ascontiguousarray(x).reshape(x.shape)
                buffer, address = self._buffer(x.nbytes)
                buffers.append(buffer)
                self._copy(address, x.ctypes.data_as(c.c_void_p), x.nbytes, TO_DEVICE)
                call("context_set_input_shape", self.context, name.encode(), (c.c_int64 * 32)(*x.shape), c.c_size_t(x.ndim))
                call("context_bind", self.context, name.encode(), address)
            waiting = []
            for name, dtype in self.outputs:
                try:
                    shape = None if name in self.growing else self._shape(name)
                except Refused:
                    self.growing.add(name)
                    shape = None
                if shape is None:
                    waiting.append(self._grows(name, dtype, buffers))
                    continue
                y = np.zeros(shape, dtype)
                buffer, address = self._buffer(y.nbytes)
                buffers.append(buffer)
                poison = np.full(y.nbytes, 0xA5, np.uint8)
                self._copy(address, poison.ctypes.data_as(c.c_void_p), y.nbytes, TO_DEVICE)
                call("context_bind", self.context, name, address)
                waiting.append(lambda y=y, address=address: (y, address))
            call("context_execute", self.context)
            out = []
            for result in waiting:
                y, address = result()
                self._copy(y.ctypes.data_as(c.c_void_p), address, y.nbytes, TO_HOST)
                out.append(y)
            return out
        finally:
            for buffer in buffers:
                self.library.lib.sinter_buffer_destroy(buffer)
