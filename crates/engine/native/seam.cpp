// Hands matrix products with Q8_0 weights, and attention, to the kernels in src/kernels.
//
// The way in is ggml's own for accelerators inside its CPU backend (AMX, KleidiAI, its repacked formats): a buffer type
// that takes weights in another order, and traits that compute an operation in the threads of the graph. Nothing here
// computes; what is here is what only C++ can say.

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "traits.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

// `Kernels` in src/kernels.rs.
struct batchin_kernels {
    void (*pack)(uint8_t * packed, const uint8_t * rows, size_t count, size_t width);
    size_t (*quantized_size)(size_t width, size_t tokens);
    void (*quantize)(uint8_t * quantized, const float * values, size_t width, size_t token, size_t tokens);
    void (*multiply)(const struct batchin_product * product, size_t first, size_t count);
    size_t (*attend_size)(size_t cells, size_t heads);
    void (*attend)(const struct batchin_attention * attention, uint8_t * scratch);
};

// `Product` in src/kernels/q8.rs.
struct batchin_product {
    const uint8_t * packed;
    size_t rows;
    size_t width;
    const uint8_t * quantized;
    size_t tokens;
    float * out;
};

// `Attention` in src/kernels/attention.rs: the heads of one token that read the same keys.
struct batchin_attention {
    const uint8_t * query;
    size_t query_stride;
    const uint8_t * keys;
    size_t key_stride;
    const uint8_t * values;
    size_t value_stride;
    const uint16_t * mask;
    uint8_t * out;
    size_t out_stride;
    size_t cells;
    size_t heads;
    size_t key_width;
    size_t value_width;
    float scale;
};

namespace {

constexpr size_t LINE = 64;
constexpr int ROWS = 16;
// Rows of a product that a thread takes at a time, in groups of 16.
constexpr int64_t GROUPS = 4;

batchin_kernels kernels;

ggml_backend_buffer_type_t buffer_type();

uint8_t * aligned(void * p) {
    return reinterpret_cast<uint8_t *>((reinterpret_cast<uintptr_t>(p) + LINE - 1) & ~uintptr_t(LINE - 1));
}

bool packs(const ggml_tensor * weights) {
    return weights->type == GGML_TYPE_Q8_0 && ggml_n_dims(weights) == 2 && weights->ne[1] % ROWS == 0;
}

// Waits until every thread of the graph is here, and then takes pieces of work until there are none left.
template <typename F> void share(const ggml_compute_params * params, int64_t pieces, F && each) {
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    for (int64_t at = params->ith; at < pieces; at = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        each(at);
    }
}

class product : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        const ggml_tensor * x = op->src[1];
        size = LINE + kernels.quantized_size(x->ne[0], ggml_nrows(x));
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * x       = op->src[1];
        const int64_t       width   = weights->ne[0];
        const int64_t       tokens  = ggml_nrows(x);
        uint8_t *           scratch = aligned(params->wdata);
        for (int64_t token = params->ith; token < tokens; token += params->nth) {
            const int64_t i1  = token % x->ne[1];
            const int64_t i2  = token / x->ne[1] % x->ne[2];
            const int64_t i3  = token / x->ne[1] / x->ne[2];
            const char *  row = static_cast<const char *>(x->data) + i1 * x->nb[1] + i2 * x->nb[2] + i3 * x->nb[3];
            kernels.quantize(scratch, reinterpret_cast<const float *>(row), width, token, tokens);
        }
        const batchin_product whole = { static_cast<const uint8_t *>(weights->data), static_cast<size_t>(weights->ne[1]),
                                        static_cast<size_t>(width), scratch, static_cast<size_t>(tokens),
                                        static_cast<float *>(op->data) };
        const int64_t groups = weights->ne[1] / ROWS;
        share(params, (groups + GROUPS - 1) / GROUPS, [&](int64_t at) {
            const int64_t first = at * GROUPS;
            kernels.multiply(&whole, first, std::min(GROUPS, groups - first));
        });
        return true;
    }
};

class attention : public ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * op, size_t & size) override {
        size = LINE + threads * scratch_size(op);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const ggml_tensor * q    = op->src[0];
        const ggml_tensor * k    = op->src[1];
        const ggml_tensor * v    = op->src[2];
        const ggml_tensor * mask = op->src[3];
        const int64_t       tokens = q->ne[1], streams = q->ne[3];
        const int64_t       shared = q->ne[2] / k->ne[2];  // heads that read the same keys
        // Together they read them once; alone they keep more threads busy. Either way each computes the same.
        const int64_t each  = tokens * streams * k->ne[2] >= 4 * params->nth ? shared : 1;
        const int64_t parts = q->ne[2] / each;
        uint8_t *           scratch = aligned(params->wdata) + params->ith * scratch_size(op);
        share(params, tokens * streams * parts, [&](int64_t at) {
            const int64_t head = at % parts * each, token = at / parts % tokens, stream = at / parts / tokens;
            batchin_attention one;
            one.query        = bytes(q) + token * q->nb[1] + head * q->nb[2] + stream * q->nb[3];
            one.query_stride = q->nb[2];
            one.keys         = bytes(k) + head / shared * k->nb[2] + stream * k->nb[3];
            one.key_stride   = k->nb[1];
            one.values       = bytes(v) + head / shared * v->nb[2] + stream * v->nb[3];
            one.value_stride = v->nb[1];
            one.mask         = reinterpret_cast<const uint16_t *>(bytes(mask) + token * mask->nb[1] +
                                                          stream % mask->ne[3] * mask->nb[3]);
            one.out =
                const_cast<uint8_t *>(bytes(op)) + head * op->nb[1] + token * op->nb[2] + stream * op->nb[3];
            one.out_stride  = op->nb[1];
            one.cells       = k->ne[1];
            one.heads       = each;
            one.key_width   = k->ne[0];
            one.value_width = v->ne[0];
            memcpy(&one.scale, op->op_params, sizeof(float));
            kernels.attend(&one, scratch);
        });
        return true;
    }

    static const uint8_t * bytes(const ggml_tensor * tensor) { return static_cast<const uint8_t *>(tensor->data); }

    static size_t scratch_size(const ggml_tensor * op) {
        const ggml_tensor * k = op->src[1];
        const size_t        size = kernels.attend_size(k->ne[1], op->src[0]->ne[2] / k->ne[2]);
        return (size + LINE - 1) / LINE * LINE;
    }
};

bool attends(const ggml_tensor * op) {
    const ggml_tensor * q    = op->src[0];
    const ggml_tensor * k    = op->src[1];
    const ggml_tensor * v    = op->src[2];
    const ggml_tensor * mask = op->src[3];
    float               max_bias, softcap;
    memcpy(&max_bias, op->op_params + 1, sizeof(float));
    memcpy(&softcap, op->op_params + 2, sizeof(float));
    return mask && !op->src[4] && max_bias == 0 && softcap == 0 && q->type == GGML_TYPE_F32 &&
           k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && mask->type == GGML_TYPE_F16 &&
           mask->ne[2] == 1 && k->ne[1] % 32 == 0 && k->ne[0] % 16 == 0 && v->ne[0] % 16 == 0 && k->ne[2] == v->ne[2] &&
           q->ne[2] % k->ne[2] == 0 && q->ne[3] == k->ne[3] && q->nb[0] == sizeof(float) && k->nb[0] == 2 &&
           v->nb[0] == 2;
}

product   products;
attention attentions;

class extra : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * x       = op->src[1];
        return op->op == GGML_OP_MUL_MAT && weights->buffer && weights->buffer->buft == buffer_type() &&
               packs(weights) && x->type == GGML_TYPE_F32 &&
               (!x->buffer || ggml_backend_buft_is_host(x->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        if (op->op == GGML_OP_MUL_MAT && op->src[0]->buffer && op->src[0]->buffer->buft == buffer_type()) {
            return &products;
        }
        return op->op == GGML_OP_FLASH_ATTN_EXT && attends(op) ? &attentions : nullptr;
    }
};

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor) && packs(tensor));
    kernels.pack(static_cast<uint8_t *>(tensor->data), static_cast<const uint8_t *>(data), tensor->ne[1], tensor->ne[0]);
}

const char * name(ggml_backend_buffer_type_t) {
    return "CPU_BATCHIN";
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft             = type;
        buffer->iface.set_tensor = set_tensor;
        buffer->iface.get_tensor = nullptr;
        buffer->iface.cpy_tensor = nullptr;
    }
    return buffer;
}

size_t alignment(ggml_backend_buffer_type_t) {
    return LINE;
}

ggml_backend_buffer_type_t buffer_type() {
    static ggml_backend_buffer_type type = [] {
        ggml_backend_buffer_type made = {};
        made.iface.get_name      = name;
        made.iface.alloc_buffer  = allocate;
        made.iface.get_alignment = alignment;
        made.device              = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
        made.context             = new extra;
        return made;
    }();
    return &type;
}

}  // namespace

// To be called once, before ggml is asked for its buffer types, which is when a model is loaded.
extern "C" void batchin_install_kernels(const batchin_kernels * given) {
    kernels = *given;
    std::vector<ggml_backend_buffer_type_t> & types = ggml_backend_cpu_get_extra_buffer_types();
    // Every processor with AMX has what these kernels need. ggml's own code for AMX would go before them, and crashes:
    // GCC up to 12.3 drops the stores of the tile configuration that it loads (ggml-org/llama.cpp#20824).
    const auto is_amx = [](ggml_backend_buffer_type_t type) { return strcmp(ggml_backend_buft_name(type), "AMX") == 0; };
    types.erase(std::remove_if(types.begin(), types.end(), is_amx), types.end());
    types.insert(types.begin(), buffer_type());
}
