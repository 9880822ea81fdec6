// Gaussian splatting on the CPU in C++ and OpenMP, forward and backward: the yardstick of bench/rasteriser.py.
//
// Same mathematics as latent3d.rendering (see splats_reference.py and projection.py there), float32 only. Tiles of
// 16 x 16 pixels; a row of a tile is one vector of 16 lanes. Up to FEW channels are blended pixel by pixel in lanes,
// more with the channels as lanes, kept in registers while the pixels of a splat go by.
//
// Letters: V views, N splats, C channels. Arrays are dense and row by row: means (N, 3), quaternions (N, 4) as
// w, x, y, z, scales (N, 3), opacities (N), channels (N, C), w2c (V, 4, 4), k (V, 3, 3), images (V, C, H, W),
// depths and alphas (V, H, W).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#include <omp.h>

namespace {

constexpr int SIDE = 16, PIXELS = SIDE * SIDE, FEW = 8, CHECK_EVERY = 32;
constexpr int RADIX_BITS = 11, RADIX = 1 << RADIX_BITS, PASSES = 3;
constexpr float ALPHA_MIN = 1.0f / 255, ALPHA_MAX = 0.99f, STOP = 1e-4f, LEAST_ALPHA = 1e-6f, SLACK = 1e-4f;
constexpr float MARGIN = 0.15f, LEAST_NORM = 1e-12f, LOG2_E = 1.44269504f;

typedef float Lanes __attribute__((vector_size(4 * SIDE)));
typedef float Loose __attribute__((vector_size(4 * SIDE), aligned(4), may_alias));  // the same anywhere in memory
typedef int32_t Ints __attribute__((vector_size(4 * SIDE)));

struct Vec {
    float x, y, z;
};
inline Vec operator+(Vec a, Vec b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec operator*(float s, Vec a) { return {s * a.x, s * a.y, s * a.z}; }
inline float dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec cross(Vec a, Vec b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }

inline float sum(Lanes v) {  // in halves
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return v[0] + v[1];
}

// 2^x for x <= 10: the nearest integer goes to the exponent, a polynomial does the rest; relative error about 1e-7.
inline Lanes exp2_lanes(Lanes x) {
    constexpr float shift = 12582912.0f;  // 1.5 * 2^23: the sum's last bits are the nearest integer
    x = x > -120.0f ? x : Lanes{} - 120.0f;
    const Lanes shifted = x + shift;
    const Lanes f = x - (shifted - shift);
    Lanes p = 1.54035304e-4f * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    return (Lanes)((Ints)p + ((Ints)shifted << 23));
}

struct Splat {  // on the screen of one view
    float x, y, a, b, c, z, opacity, log2_opacity;
};
struct Rect {  // tiles: first column and row, past-last column and row; and the half height that counts
    int16_t x0, y0, x1, y1;
    float reach;
    bool seen() const { return x1 > x0 && y1 > y0; }
};
struct Gradient {
    float x, y, a, b, c, z, opacity, unused;
};

template <class T>
using Buffer = std::unique_ptr<T[], decltype(&std::free)>;
template <class T>
Buffer<T> zeros(size_t count) {  // pages that nobody touches cost nothing
    return Buffer<T>(static_cast<T*>(std::calloc(std::max<size_t>(count, 1), sizeof(T))), std::free);
}
template <class T>
Buffer<T> room(size_t count) {
    const size_t bytes = (std::max<size_t>(count, 1) * sizeof(T) + 63) / 64 * 64;
    return Buffer<T>(static_cast<T*>(std::aligned_alloc(64, bytes)), std::free);
}

struct Frame {  // inputs, and what the way back needs
    int threads, V, N, C, wide, H, W, columns, rows;
    float low_pass, near;
    const float *means, *quaternions, *scales, *opacities, *channels, *w2c, *k;
    Buffer<Splat> splats{nullptr, std::free};
    Buffer<Rect> rects{nullptr, std::free};
    Buffer<float> padded{nullptr, std::free}, remaining{nullptr, std::free};
    Buffer<float> depths{nullptr, std::free}, alphas{nullptr, std::free};
    Buffer<int32_t> last{nullptr, std::free}, entries{nullptr, std::free};
    std::vector<int64_t> starts;

    int tiles() const { return columns * rows; }
    const float* features() const { return padded ? padded.get() : channels; }
};

// ---------------------------------------------------------------------------------------------------- projection

struct Turn {  // rotation of a splat, its unit quaternion, the inverse norm
    Vec r[3];
    float w, x, y, z, inverse;
};
inline Turn turn_of(const float* q) {
    Turn t;
    t.inverse = 1 / std::max(std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]), LEAST_NORM);
    const float w = t.w = q[0] * t.inverse, x = t.x = q[1] * t.inverse, y = t.y = q[2] * t.inverse;
    const float z = t.z = q[3] * t.inverse;
    t.r[0] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)};
    t.r[1] = {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)};
    t.r[2] = {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)};
    return t;
}

struct Camera {
    Vec r[3], t;
    float fx, fy, cx, cy, u0, u1, v0, v1;  // u and v between which the Jacobian is taken
};
Camera camera_of(const Frame& f, int view) {
    const float *m = f.w2c + 16 * view, *k = f.k + 9 * view;
    Camera c;
    for (int i = 0; i < 3; i++) c.r[i] = {m[4 * i], m[4 * i + 1], m[4 * i + 2]};
    c.t = {m[3], m[7], m[11]};
    c.fx = k[0], c.fy = k[4], c.cx = k[2], c.cy = k[5];
    const float mx = MARGIN * f.W / c.fx, my = MARGIN * f.H / c.fy;
    c.u0 = -c.cx / c.fx - mx, c.u1 = (f.W - c.cx) / c.fx + mx;
    c.v0 = -c.cy / c.fy - my, c.v1 = (f.H - c.cy) / c.fy + my;
    return c;
}

struct Seen {  // a splat before a camera: place, clamped u and v, rows of the Jacobian, both times M
    Vec local, a, b, p, q;
    float inverse, uc, vc;
};
inline Vec times(Vec row, const Vec* m) { return row.x * m[0] + row.y * m[1] + row.z * m[2]; }
inline Seen look(const Camera& c, Vec local, const Vec* m) {
    Seen s;
    s.local = local;
    s.inverse = 1 / local.z;
    s.uc = std::min(std::max(local.x * s.inverse, c.u0), c.u1);
    s.vc = std::min(std::max(local.y * s.inverse, c.v0), c.v1);
    s.a = c.fx * s.inverse * (c.r[0] + -s.uc * c.r[2]);
    s.b = c.fy * s.inverse * (c.r[1] + -s.vc * c.r[2]);
    s.p = times(s.a, m), s.q = times(s.b, m);
    return s;
}
inline Vec local_of(const Camera& c, Vec mean) {
    return {dot(c.r[0], mean) + c.t.x, dot(c.r[1], mean) + c.t.y, dot(c.r[2], mean) + c.t.z};
}
inline Vec mean_of(const Frame& f, int n) { return {f.means[3 * n], f.means[3 * n + 1], f.means[3 * n + 2]}; }
inline void axes_of(const Frame& f, int n, const Turn& turn, Vec* m) {
    const float* s = f.scales + 3 * n;
    for (int i = 0; i < 3; i++) m[i] = {turn.r[i].x * s[0], turn.r[i].y * s[1], turn.r[i].z * s[2]};
}
inline int tile_at(float position, int limit) {
    const float tile = position / SIDE;
    return tile > 0 ? (tile >= limit ? limit : int(tile)) : 0;
}

void project(const Frame& f, const std::vector<Camera>& cameras, int n) {
    Vec m[3];
    axes_of(f, n, turn_of(f.quaternions + 4 * n), m);
    const float opacity = f.opacities[n];
    const bool counts = opacity >= ALPHA_MIN;
    const float log2_opacity = counts ? std::log2(opacity) : 0;
    const float cutoff = counts ? 2 * (log2_opacity - std::log2(ALPHA_MIN)) / LOG2_E : 0;
    for (int view = 0; view < f.V; view++) {
        const Camera& camera = cameras[view];
        const size_t at = size_t(view) * f.N + n;
        Rect& rect = f.rects[at];
        rect = {0, 0, 0, 0, 0};
        const Vec local = local_of(camera, mean_of(f, n));
        if (!(local.z > f.near) || !counts) continue;
        const Seen s = look(camera, local, m);
        const float pp = dot(s.p, s.p), qq = dot(s.q, s.q), pq = dot(s.p, s.q);
        const Vec across = cross(s.p, s.q);
        const float det = dot(across, across) + f.low_pass * (pp + qq) + f.low_pass * f.low_pass;
        if (!std::isfinite(det + local.x + local.y + local.z)) continue;
        const float x = camera.fx * local.x * s.inverse + camera.cx, y = camera.fy * local.y * s.inverse + camera.cy;
        const float reach_x = std::sqrt(cutoff * (pp + f.low_pass)) * (1 + SLACK) + SLACK;
        const float reach_y = std::sqrt(cutoff * (qq + f.low_pass)) * (1 + SLACK) + SLACK;
        rect.x0 = int16_t(tile_at(x - reach_x - 0.5f, f.columns));
        rect.y0 = int16_t(tile_at(y - reach_y - 0.5f, f.rows));
        rect.x1 = int16_t(tile_at(x + reach_x - 0.5f + SIDE, f.columns));
        rect.y1 = int16_t(tile_at(y + reach_y - 0.5f + SIDE, f.rows));
        rect.reach = reach_y;
        const float inverse = 1 / det;
        f.splats[at] = {x, y, (qq + f.low_pass) * inverse, -pq * inverse, (pp + f.low_pass) * inverse,
                        local.z, opacity, log2_opacity};
    }
}

void project_backward(const Frame& f, const std::vector<Camera>& cameras, int n, const Gradient* gradients,
                      int buffers, float* d_mean, float* d_quaternion, float* d_scale, float* d_opacity) {
    const Turn t = turn_of(f.quaternions + 4 * n);
    Vec m[3], d_m[3] = {}, to_mean = {};
    axes_of(f, n, t, m);
    float to_opacity = 0;
    for (int view = 0; view < f.V; view++) {
        const size_t at = size_t(view) * f.N + n;
        if (!f.rects[at].seen()) continue;
        Gradient g = {};
        for (int buffer = 0; buffer < buffers; buffer++) {
            const Gradient& part = gradients[size_t(buffer) * f.V * f.N + at];
            g.x += part.x, g.y += part.y, g.a += part.a, g.b += part.b, g.c += part.c, g.z += part.z;
            g.opacity += part.opacity;
        }
        const Camera& camera = cameras[view];
        const Seen s = look(camera, local_of(camera, mean_of(f, n)), m);
        const float pp = dot(s.p, s.p), qq = dot(s.q, s.q), pq = dot(s.p, s.q);
        const Vec across = cross(s.p, s.q);
        const float det = dot(across, across) + f.low_pass * (pp + qq) + f.low_pass * f.low_pass, inverse = 1 / det;
        const float d_det = -(g.a * (qq + f.low_pass) - g.b * pq + g.c * (pp + f.low_pass)) * inverse * inverse;
        const float d_pp = g.c * inverse + f.low_pass * d_det, d_qq = g.a * inverse + f.low_pass * d_det;
        const float d_pq = -g.b * inverse;
        const Vec dp = 2 * d_pp * s.p + d_pq * s.q + 2 * d_det * cross(s.q, across);
        const Vec dq = 2 * d_qq * s.q + d_pq * s.p + 2 * d_det * cross(across, s.p);
        d_m[0] = d_m[0] + s.a.x * dp + s.b.x * dq;
        d_m[1] = d_m[1] + s.a.y * dp + s.b.y * dq;
        d_m[2] = d_m[2] + s.a.z * dp + s.b.z * dq;
        const Vec da = {dot(m[0], dp), dot(m[1], dp), dot(m[2], dp)}, db = {dot(m[0], dq), dot(m[1], dq), dot(m[2], dq)};
        const float u = s.local.x * s.inverse, v = s.local.y * s.inverse;
        float du = camera.fx * g.x, dv = camera.fy * g.y;
        if (s.uc == u) du -= camera.fx * s.inverse * dot(da, camera.r[2]);
        if (s.vc == v) dv -= camera.fy * s.inverse * dot(db, camera.r[2]);
        const float dz = g.z - s.inverse * (dot(da, s.a) + dot(db, s.b) + du * u + dv * v);
        to_mean = to_mean + du * s.inverse * camera.r[0] + dv * s.inverse * camera.r[1] + dz * camera.r[2];
        to_opacity += g.opacity;
    }
    const float* scale = f.scales + 3 * n;
    Vec g[3];  // gradient of the rotation
    for (int i = 0; i < 3; i++) g[i] = {d_m[i].x * scale[0], d_m[i].y * scale[1], d_m[i].z * scale[2]};
    const float w = t.w, x = t.x, y = t.y, z = t.z;
    const float dw = 2 * (z * (g[1].x - g[0].y) + y * (g[0].z - g[2].x) + x * (g[2].y - g[1].z));
    const float dx = 2 * (y * (g[0].y + g[1].x) + z * (g[0].z + g[2].x) + w * (g[2].y - g[1].z) - 2 * x * (g[1].y + g[2].z));
    const float dy = 2 * (x * (g[0].y + g[1].x) + z * (g[1].z + g[2].y) + w * (g[0].z - g[2].x) - 2 * y * (g[0].x + g[2].z));
    const float dz = 2 * (x * (g[0].z + g[2].x) + y * (g[1].z + g[2].y) + w * (g[1].x - g[0].y) - 2 * z * (g[0].x + g[1].y));
    const float along = w * dw + x * dx + y * dy + z * dz;
    const float quaternion[4] = {dw - w * along, dx - x * along, dy - y * along, dz - z * along};
    for (int i = 0; i < 4; i++) d_quaternion[4 * n + i] = quaternion[i] * t.inverse;
    d_scale[3 * n] = d_m[0].x * t.r[0].x + d_m[1].x * t.r[1].x + d_m[2].x * t.r[2].x;
    d_scale[3 * n + 1] = d_m[0].y * t.r[0].y + d_m[1].y * t.r[1].y + d_m[2].y * t.r[2].y;
    d_scale[3 * n + 2] = d_m[0].z * t.r[0].z + d_m[1].z * t.r[1].z + d_m[2].z * t.r[2].z;
    d_mean[3 * n] = to_mean.x, d_mean[3 * n + 1] = to_mean.y, d_mean[3 * n + 2] = to_mean.z;
    d_opacity[n] = to_opacity;
}

// ---------------------------------------------------------------------------------------------- order and tiles

inline int cut(int64_t total, int part, int parts) { return int(total * part / parts); }

// Stable radix sort by depth of the splats of one view that touch a tile; returns how many. All threads call it.
int sort_view(const Frame& f, int view, std::vector<uint32_t>* keys, std::vector<int32_t>* order,
              std::vector<int32_t>& histogram) {
    const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const Splat* splats = f.splats.get() + size_t(view) * f.N;
    const Rect* rects = f.rects.get() + size_t(view) * f.N;
    int32_t* mine = histogram.data() + thread * RADIX;
    int total = f.N;
    for (int pass = 0; pass < PASSES; pass++) {
        const int shift = pass * RADIX_BITS, low = cut(total, thread, threads), high = cut(total, thread + 1, threads);
        const uint32_t* from = keys[pass % 2].data();
        const int32_t* which = order[pass % 2].data();
        uint32_t* to = keys[1 - pass % 2].data();
        int32_t* target = order[1 - pass % 2].data();
        std::memset(mine, 0, RADIX * sizeof(int32_t));
        auto each = [&](auto&& visit) {
            if (pass > 0) {
                for (int i = low; i < high; i++) visit(from[i], which[i]);
                return;
            }
            for (int n = low; n < high; n++) {
                if (!rects[n].seen()) continue;
                uint32_t key;
                std::memcpy(&key, &splats[n].z, sizeof key);  // positive floats sort as integers do
                visit(key, n);
            }
        };
        each([&](uint32_t key, int) { mine[(key >> shift) & (RADIX - 1)]++; });
#pragma omp barrier
#pragma omp single
        {
            int start = 0;
            for (int digit = 0; digit < RADIX; digit++)
                for (int t = 0; t < threads; t++) {
                    const int count = histogram[t * RADIX + digit];
                    histogram[t * RADIX + digit] = start;
                    start += count;
                }
            histogram[threads * RADIX] = start;
        }
        total = histogram[threads * RADIX];
        each([&](uint32_t key, int n) {
            const int place = mine[(key >> shift) & (RADIX - 1)]++;
            to[place] = key, target[place] = n;
        });
#pragma omp barrier
    }
    return total;
}

// Lists of splats by tile, in order of depth. All threads call it for every view in turn.
void bin_view(Frame& f, int view, const int32_t* order, int total, std::vector<int32_t>& counts, int64_t& filled) {
    const int thread = omp_get_thread_num(), threads = omp_get_num_threads(), tiles = f.tiles();
    const Rect* rects = f.rects.get() + size_t(view) * f.N;
    int32_t* mine = counts.data() + size_t(thread) * tiles;
    const int low = cut(total, thread, threads), high = cut(total, thread + 1, threads);
    std::memset(mine, 0, tiles * sizeof(int32_t));
    auto each = [&](auto&& visit) {
        for (int i = low; i < high; i++) {
            const Rect r = rects[order[i]];
            for (int row = r.y0; row < r.y1; row++)
                for (int column = r.x0; column < r.x1; column++) visit(row * f.columns + column, order[i]);
        }
    };
    each([&](int tile, int) { mine[tile]++; });
#pragma omp barrier
#pragma omp single
    {
        const int64_t first = filled;
        for (int tile = 0; tile < tiles; tile++) {
            f.starts[size_t(view) * tiles + tile] = filled;
            for (int t = 0; t < threads; t++) {
                const int count = counts[size_t(t) * tiles + tile];
                counts[size_t(t) * tiles + tile] = int32_t(filled - first);
                filled += count;
            }
        }
        f.starts[size_t(view + 1) * tiles] = filled;
        auto* grown = static_cast<int32_t*>(std::realloc(f.entries.release(), std::max<int64_t>(filled, 1) * 4));
        f.entries.reset(grown);
    }
    int32_t* entries = f.entries.get() + f.starts[size_t(view) * tiles];
    each([&](int tile, int n) { entries[mine[tile]++] = n; });
#pragma omp barrier
}

// ------------------------------------------------------------------------------------------------------ blending

struct Place {  // of a tile
    int view, x0, y0, width, height;
    int64_t begin, end;
};
Place place_of(const Frame& f, int tile) {
    const int view = tile / f.tiles(), at = tile % f.tiles();
    const int x0 = at % f.columns * SIDE, y0 = at / f.columns * SIDE;
    return {view, x0, y0, std::min(SIDE, f.W - x0), std::min(SIDE, f.H - y0), f.starts[tile], f.starts[tile + 1]};
}
inline void rows_reached(const Splat& s, float reach, const Place& tile, int& low, int& high) {
    low = std::max(0, int(std::ceil(s.y - reach - 0.5f)) - tile.y0);
    high = std::min(tile.height, int(std::floor(s.y + reach - 0.5f)) + 1 - tile.y0);
}
// Opacity times the Gaussian on a row: 2 to a quadratic in dx. The same operations forward and backward.
struct Row {
    float constant, linear, square;
    Row(const Splat& s, float dy)
        : constant(s.log2_opacity - 0.5f * LOG2_E * s.c * dy * dy), linear(-LOG2_E * s.b * dy),
          square(-0.5f * LOG2_E * s.a) {}
    Lanes operator()(Lanes dx) const { return exp2_lanes((square * dx + linear) * dx + constant); }
};
const Lanes STEPS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
const Ints PLACES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct alignas(64) Pixels {  // the pixels of a tile to which a splat contributes
    int count;
    int32_t at[PIXELS + SIDE];  // whole vectors are stored
    float weight[PIXELS + SIDE], inner[PIXELS];
    void note(int row, Lanes weights) {
#ifdef __AVX512F__
        const __mmask16 counts = _mm512_cmp_ps_mask((__m512)weights, _mm512_setzero_ps(), _CMP_GT_OQ);
        const Ints places = row * SIDE + PLACES;
        _mm512_storeu_si512(at + count, _mm512_maskz_compress_epi32(counts, (__m512i)places));
        _mm512_storeu_ps(weight + count, _mm512_maskz_compress_ps(counts, (__m512)weights));
        count += __builtin_popcount(counts);
#else
        for (int i = 0; i < SIDE; i++) {  // without branches: the next one overwrites what does not count
            at[count] = row * SIDE + i;
            weight[count] = weights[i];
            count += weights[i] > 0;
        }
#endif
    }
};

template <int B>
void add_channels(const Pixels& pixels, const float* feature, float* image, int stride) {
    Lanes value[B];
    for (int b = 0; b < B; b++) value[b] = *(const Loose*)(feature + b * SIDE);
    for (int j = 0; j < pixels.count; j++) {
        float* target = image + pixels.at[j] * stride;
        for (int b = 0; b < B; b++) *(Lanes*)(target + b * SIDE) += pixels.weight[j] * value[b];
    }
}
template <int B>
void add_channels_backward(Pixels& pixels, const float* feature, const float* d_image, float* d_feature, int stride) {
    Lanes value[B], gradient[B] = {};
    for (int b = 0; b < B; b++) value[b] = *(const Loose*)(feature + b * SIDE);
    for (int j = 0; j < pixels.count; j++) {
        const float* source = d_image + pixels.at[j] * stride;
        Lanes inner = {};
        for (int b = 0; b < B; b++) {
            const Lanes incoming = *(const Lanes*)(source + b * SIDE);
            inner += incoming * value[b];
            gradient[b] += pixels.weight[j] * incoming;
        }
        pixels.inner[j] += sum(inner);
    }
    for (int b = 0; b < B; b++) *(Loose*)(d_feature + b * SIDE) += gradient[b];
}
// ``run`` with 8, 4, 2 or 1 vectors of channels at a time.
template <class Run>
void by_blocks(int channels, Run&& run) {
    int at = 0;
    for (; channels - at >= 8 * SIDE; at += 8 * SIDE) run(std::integral_constant<int, 8>(), at);
    if (channels - at >= 4 * SIDE) run(std::integral_constant<int, 4>(), at), at += 4 * SIDE;
    if (channels - at >= 2 * SIDE) run(std::integral_constant<int, 2>(), at), at += 2 * SIDE;
    if (channels - at >= SIDE) run(std::integral_constant<int, 1>(), at);
}

struct alignas(64) Workspace {
    Lanes remaining[SIDE], active[SIDE], depth[SIDE], mass[SIDE], d_depth[SIDE], d_alpha[SIDE], suffix[SIDE];
    Lanes weight[SIDE], response[SIDE], inverse[SIDE], channel[FEW][SIDE];
    Ints last[SIDE];
    alignas(64) float inner[PIXELS];
    Pixels pixels;
    Buffer<float> image{nullptr, std::free};  // (PIXELS, wide)
};

template <int FIXED>  // number of channels if it is known to the compiler, 0: few, -1: many
void blend_tile(const Frame& f, const Place& tile, Workspace& work, float* images, float* depths, float* alphas) {
    const int C = FIXED > 0 ? FIXED : f.C, stride = f.wide;
    const float* features = f.features();
    for (int y = 0; y < SIDE; y++) {
        work.remaining[y] = Lanes{} + 1.0f;
        work.active[y] = STEPS < (y < tile.height ? float(tile.width) : 0.0f) ? Lanes{} + 1.0f : Lanes{};
        work.depth[y] = work.mass[y] = Lanes{};
        work.last[y] = Ints{} - 1;
        if (FIXED >= 0)
            for (int c = 0; c < C; c++) work.channel[c][y] = Lanes{};
    }
    if (FIXED < 0) std::memset(work.image.get(), 0, sizeof(float) * PIXELS * stride);
    unsigned open = (1u << tile.height) - 1;  // rows with pixels that have not ended
    for (int64_t entry = tile.begin; entry < tile.end; entry++) {
        const int index = int(entry - tile.begin), n = f.entries[entry];
        if (index % CHECK_EVERY == CHECK_EVERY - 1) {
            for (int y = 0; y < tile.height; y++)
                if (!(sum(work.active[y]) > 0)) open &= ~(1u << y);
            if (!open) break;
        }
        const Splat s = f.splats[size_t(tile.view) * f.N + n];
        const Lanes dx = s.x - tile.x0 - 0.5f - STEPS;
        int low, high;
        rows_reached(s, f.rects[size_t(tile.view) * f.N + n].reach, tile, low, high);
        work.pixels.count = 0;
        for (int y = low; y < high; y++) {
            if (!(open >> y & 1)) continue;
            Lanes alpha = Row(s, s.y - (tile.y0 + y + 0.5f))(dx);
            alpha = alpha >= ALPHA_MIN ? alpha : Lanes{};
            alpha = alpha > ALPHA_MAX ? Lanes{} + ALPHA_MAX : alpha;
            const Lanes before = work.active[y];  // transmittance, 0 once the pixel has ended
            const Lanes after = before * (1 - alpha);
            const auto goes_on = after > STOP;
            const Lanes weight = goes_on ? alpha * before : Lanes{};
            work.active[y] = goes_on ? after : Lanes{};
            work.remaining[y] = goes_on ? after : work.remaining[y];
            work.last[y] = weight > 0 ? Ints{} + index : work.last[y];
            work.depth[y] += weight * s.z;
            work.mass[y] += weight;
            if (FIXED >= 0)
                for (int c = 0; c < C; c++) work.channel[c][y] += weight * features[size_t(n) * C + c];
            else
                work.pixels.note(y, weight);
        }
        if (FIXED < 0)
            by_blocks(stride, [&](auto blocks, int at) {
                add_channels<blocks()>(work.pixels, features + size_t(n) * stride + at, work.image.get() + at, stride);
            });
    }
    for (int y = 0; y < tile.height; y++) {
        const size_t at = (size_t(tile.view) * f.H + tile.y0 + y) * f.W + tile.x0;
        for (int i = 0; i < tile.width; i++) {
            f.remaining[at + i] = work.remaining[y][i];
            f.last[at + i] = work.last[y][i];
            alphas[at + i] = f.alphas[at + i] = work.mass[y][i];
            depths[at + i] = f.depths[at + i] = work.depth[y][i] / std::max(float(work.mass[y][i]), LEAST_ALPHA);
        }
    }
    for (int c = 0; c < C; c++)
        for (int y = 0; y < tile.height; y++) {
            float* target = images + ((size_t(tile.view) * C + c) * f.H + tile.y0 + y) * f.W + tile.x0;
            for (int i = 0; i < tile.width; i++)
                target[i] = FIXED >= 0 ? work.channel[c][y][i] : work.image[(y * SIDE + i) * stride + c];
        }
}

struct Incoming {
    const float *images, *depths, *alphas;
};

template <int FIXED>
int load_tile(const Frame& f, const Place& tile, Workspace& work, const Incoming& d, int* row_last) {
    const int C = FIXED > 0 ? FIXED : f.C;
    int newest = -1;
    for (int y = 0; y < SIDE; y++) {
        work.remaining[y] = Lanes{} + 1.0f;
        work.last[y] = Ints{} - 1;
        work.depth[y] = work.d_depth[y] = work.d_alpha[y] = work.suffix[y] = Lanes{};
        if (FIXED >= 0)
            for (int c = 0; c < C; c++) work.channel[c][y] = Lanes{};
        row_last[y] = -1;
        const size_t at = (size_t(tile.view) * f.H + tile.y0 + y) * f.W + tile.x0;
        for (int i = 0; i < (y < tile.height ? tile.width : 0); i++) {
            work.remaining[y][i] = f.remaining[at + i];
            work.last[y][i] = f.last[at + i];
            work.depth[y][i] = f.depths[at + i];
            work.d_depth[y][i] = d.depths[at + i] / std::max(f.alphas[at + i], LEAST_ALPHA);
            work.d_alpha[y][i] = d.alphas[at + i];
            row_last[y] = std::max(row_last[y], f.last[at + i]);
        }
        newest = std::max(newest, row_last[y]);
    }
    for (int c = 0; c < C; c++)
        for (int y = 0; y < tile.height; y++) {
            const float* source = d.images + ((size_t(tile.view) * C + c) * f.H + tile.y0 + y) * f.W + tile.x0;
            for (int i = 0; i < tile.width; i++) {
                if (FIXED >= 0)
                    work.channel[c][y][i] = source[i];
                else
                    work.image[(y * SIDE + i) * f.wide + c] = source[i];
            }
        }
    return newest;
}

template <int FIXED>
void blend_tile_backward(const Frame& f, const Place& tile, Workspace& work, const Incoming& incoming,
                         Gradient* gradients, float* d_features) {
    const int C = FIXED > 0 ? FIXED : f.C, stride = f.wide;
    const float* features = f.features();
    int row_last[SIDE];
    const int newest = load_tile<FIXED>(f, tile, work, incoming, row_last);
    for (int index = newest; index >= 0; index--) {
        const int n = f.entries[tile.begin + index];
        const Splat s = f.splats[size_t(tile.view) * f.N + n];
        const float* feature = features + size_t(n) * (FIXED >= 0 ? C : stride);
        float* d_feature = d_features + size_t(n) * (FIXED >= 0 ? C : stride);
        const Lanes dx = s.x - tile.x0 - 0.5f - STEPS;
        int low, high;
        rows_reached(s, f.rects[size_t(tile.view) * f.N + n].reach, tile, low, high);
        // sums of dL/dlog(alpha) times monomials of dx and dy, of dL/dz, of dL/dF
        Lanes sum_0 = {}, sum_x = {}, sum_xx = {}, sum_y = {}, sum_xy = {}, sum_yy = {}, sum_z = {};
        Lanes sum_c[FEW];
        if (FIXED >= 0)
            for (int c = 0; c < C; c++) sum_c[c] = Lanes{};
        work.pixels.count = 0;
        auto first_half = [&](int y, float dy) {  // weights on a row
            Lanes raw = Row(s, dy)(dx);
            raw = raw >= ALPHA_MIN ? raw : Lanes{};
            raw = work.last[y] >= index ? raw : Lanes{};
            const Lanes alpha = raw > ALPHA_MAX ? Lanes{} + ALPHA_MAX : raw;
            work.inverse[y] = 1 / (1 - alpha);
            work.remaining[y] *= work.inverse[y];
            work.weight[y] = alpha * work.remaining[y];
            work.response[y] = raw > ALPHA_MAX ? Lanes{} : raw;
        };
        auto second_half = [&](int y, float dy, Lanes inner) {  // gradients, with inner = F . dO
            inner += work.d_alpha[y] + (s.z - work.depth[y]) * work.d_depth[y];
            const Lanes d_alpha = work.remaining[y] * inner - work.suffix[y] * work.inverse[y];
            work.suffix[y] += work.weight[y] * inner;
            const Lanes moment = d_alpha * work.response[y];
            sum_z += work.weight[y] * work.d_depth[y];
            const Lanes along = moment * dx;
            sum_0 += moment, sum_x += along, sum_xx += along * dx;
            sum_y += moment * dy, sum_xy += along * dy, sum_yy += moment * (dy * dy);
        };
        for (int y = low; y < high; y++) {
            if (index > row_last[y]) continue;
            const float dy = s.y - (tile.y0 + y + 0.5f);
            first_half(y, dy);
            if (FIXED < 0) {
                work.pixels.note(y, work.weight[y]);
                continue;
            }
            Lanes inner = {};
            for (int c = 0; c < C; c++) {
                inner += work.channel[c][y] * feature[c];
                sum_c[c] += work.channel[c][y] * work.weight[y];
            }
            second_half(y, dy, inner);
        }
        if (FIXED < 0) {
            Pixels& pixels = work.pixels;
            std::fill(pixels.inner, pixels.inner + pixels.count, 0.0f);
            by_blocks(stride, [&](auto blocks, int at) {
                add_channels_backward<blocks()>(pixels, feature + at, work.image.get() + at, d_feature + at, stride);
            });
            std::fill(work.inner + low * SIDE, work.inner + std::max(low, high) * SIDE, 0.0f);
            for (int j = 0; j < pixels.count; j++) work.inner[pixels.at[j]] = pixels.inner[j];
            for (int y = low; y < high; y++)
                if (index <= row_last[y])
                    second_half(y, s.y - (tile.y0 + y + 0.5f), *(const Lanes*)(work.inner + y * SIDE));
        } else {
            for (int c = 0; c < C; c++) d_feature[c] += sum(sum_c[c]);
        }
        const float along_x = sum(sum_x), along_y = sum(sum_y), all = sum(sum_0);
        Gradient& g = gradients[size_t(tile.view) * f.N + n];
        g.x -= s.a * along_x + s.b * along_y;
        g.y -= s.b * along_x + s.c * along_y;
        g.a -= 0.5f * sum(sum_xx);
        g.b -= sum(sum_xy);
        g.c -= 0.5f * sum(sum_yy);
        g.z += sum(sum_z);
        g.opacity += all / s.opacity;
    }
}

Workspace* workspace(const Frame& f) {
    auto* work = new Workspace;
    if (f.C > FEW) {
        work->image = room<float>(size_t(PIXELS) * f.wide);
        std::memset(work->image.get(), 0, sizeof(float) * PIXELS * f.wide);
    }
    return work;
}

std::vector<Camera> cameras_of(const Frame& f) {
    std::vector<Camera> cameras;
    for (int view = 0; view < f.V; view++) cameras.push_back(camera_of(f, view));
    return cameras;
}

}  // namespace

extern "C" {

// Renders, and returns what splats_backward needs; the inputs must stay where they are until splats_free.
void* splats_forward(int threads, int V, int N, int C, int H, int W, const float* means, const float* quaternions,
                     const float* scales, const float* opacities, const float* channels, const float* w2c,
                     const float* k, float low_pass, float near, float* images, float* depths, float* alphas) {
    auto* frame = new Frame{threads, V, N, C, (C + SIDE - 1) / SIDE * SIDE, H, W, (W + SIDE - 1) / SIDE,
                            (H + SIDE - 1) / SIDE, low_pass, near, means, quaternions, scales, opacities, channels,
                            w2c, k};
    Frame& f = *frame;
    const size_t screen = size_t(V) * H * W;
    f.splats = room<Splat>(size_t(V) * N), f.rects = room<Rect>(size_t(V) * N);
    f.remaining = room<float>(screen), f.last = room<int32_t>(screen);
    f.depths = room<float>(screen), f.alphas = room<float>(screen);
    if (C > FEW && f.wide != C) f.padded = zeros<float>(size_t(N) * f.wide);
    f.starts.resize(size_t(V) * f.tiles() + 1);
    const std::vector<Camera> cameras = cameras_of(f);
    std::vector<uint32_t> keys[2] = {std::vector<uint32_t>(N), std::vector<uint32_t>(N)};
    std::vector<int32_t> order[2] = {std::vector<int32_t>(N), std::vector<int32_t>(N)};
    std::vector<int32_t> histogram(size_t(threads) * RADIX + 1), counts(size_t(threads) * f.tiles());
    int64_t filled = 0;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int n = 0; n < N; n++) {
            project(f, cameras, n);
            if (f.padded) std::memcpy(f.padded.get() + size_t(n) * f.wide, channels + size_t(n) * C, 4 * size_t(C));
        }
        for (int view = 0; view < V; view++) {
            const int total = sort_view(f, view, keys, order, histogram);
            bin_view(f, view, order[PASSES % 2].data(), total, counts, filled);
        }
        std::unique_ptr<Workspace> work(workspace(f));
#pragma omp for schedule(dynamic, 2)
        for (int tile = 0; tile < V * f.tiles(); tile++) {
            const Place place = place_of(f, tile);
            if (C == 3)
                blend_tile<3>(f, place, *work, images, depths, alphas);
            else if (C <= FEW)
                blend_tile<0>(f, place, *work, images, depths, alphas);
            else
                blend_tile<-1>(f, place, *work, images, depths, alphas);
        }
    }
    return frame;
}

// Gradients of all inputs but the cameras. Every thread adds to buffers of its own.
void splats_backward(void* frame, const float* d_images, const float* d_depths, const float* d_alphas, float* d_means,
                     float* d_quaternions, float* d_scales, float* d_opacities, float* d_channels) {
    Frame& f = *static_cast<Frame*>(frame);
    const Incoming incoming = {d_images, d_depths, d_alphas};
    const std::vector<Camera> cameras = cameras_of(f);
    const int width = f.C > FEW ? f.wide : f.C;
    const size_t each = size_t(f.V) * f.N, own = size_t(f.N) * width;
    Buffer<Gradient> gradients = zeros<Gradient>(f.threads * each);
    Buffer<float> d_features = zeros<float>(f.threads * own);
#pragma omp parallel num_threads(f.threads)
    {
        const int thread = omp_get_thread_num();
        Gradient* mine = gradients.get() + thread * each;
        float* my_features = d_features.get() + thread * own;
        std::unique_ptr<Workspace> work(workspace(f));
#pragma omp for schedule(dynamic, 2)
        for (int tile = 0; tile < f.V * f.tiles(); tile++) {
            const Place place = place_of(f, tile);
            if (f.C == 3)
                blend_tile_backward<3>(f, place, *work, incoming, mine, my_features);
            else if (f.C <= FEW)
                blend_tile_backward<0>(f, place, *work, incoming, mine, my_features);
            else
                blend_tile_backward<-1>(f, place, *work, incoming, mine, my_features);
        }
#pragma omp for schedule(static)
        for (int n = 0; n < f.N; n++) {
            project_backward(f, cameras, n, gradients.get(), f.threads, d_means, d_quaternions, d_scales, d_opacities);
            for (int c = 0; c < f.C; c++) {
                float total = 0;
                for (int t = 0; t < f.threads; t++) total += d_features[t * own + size_t(n) * width + c];
                d_channels[size_t(n) * f.C + c] = total;
            }
        }
    }
}

void splats_free(void* frame) { delete static_cast<Frame*>(frame); }
}
