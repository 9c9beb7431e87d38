// A CUDA runtime for test_cuda_without_a_gpu.py: memory is the host's, kernels do nothing, capture has CUDA's rules.
// Functions that are not here and that PyTorch asks for do nothing and return 0, which is success.
// FAKE_DEVICES, FAKE_CAPABILITY (75, 90) and FAKE_MEMORY (bytes) say what the machine has.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_runtime_api.h"

enum { HOST, PINNED, DEVICE };
typedef struct { char *start; size_t size; int kind, device; } Block;
typedef struct { int capturing, broken, mode; unsigned long long capture; pthread_t owner; } Stream;
typedef struct { unsigned long long capture; } Event;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block blocks[1 << 16];
static int count = 0;
static Stream main_stream, *recording = NULL;  // one stream at a time
static unsigned long long captures = 0;
static long strays = 0;
static char anything[1 << 16];
static __thread int device = 0, thread_mode = cudaStreamCaptureModeGlobal;

static double setting(const char *name, double otherwise) { return getenv(name) ? atof(getenv(name)) : otherwise; }
static int capability(void) { return setting("FAKE_CAPABILITY", 90); }
static size_t memory(void) { return setting("FAKE_MEMORY", 16e9); }
static Stream *stream_of(cudaStream_t s) { return (size_t)s < 3 ? &main_stream : (Stream *)s; }

// kernels launched outside of the stream that records, which a graph would lack
long fake_cuda_strays(void) { return strays; }

static cudaError_t launched(cudaStream_t s) {
  Stream *own = stream_of(s);
  strays += recording && !own->capturing;
  return own->broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

// what the thread that records may not do meanwhile
static cudaError_t unsafe(void) {
  Stream *own = recording;
  if (!own || thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  if (own->mode == cudaStreamCaptureModeThreadLocal && !pthread_equal(own->owner, pthread_self())) return cudaSuccess;
  own->broken = 1;
  return cudaErrorStreamCaptureUnsupported;
}

static Block *block_of(const void *p) {
  for (Block *b = blocks; b < blocks + count; b++)
    if ((char *)p >= b->start && (char *)p < b->start + b->size) return b;
  return NULL;
}

static size_t used(void) {
  size_t sum = 0;
  for (Block *b = blocks; b < blocks + count; b++) sum += b->kind == DEVICE && b->device == device ? b->size : 0;
  return sum;
}

static cudaError_t allocate(void **p, size_t size, int kind) {
  if (unsafe()) return cudaErrorStreamCaptureUnsupported;
  pthread_mutex_lock(&lock);
  int full = kind == DEVICE && used() + size > memory();
  if (!full) {
    *p = aligned_alloc(4096, (size + 4096) / 4096 * 4096);
    memset(*p, 0, size);
    blocks[count++] = (Block){*p, size, kind, device};
  }
  pthread_mutex_unlock(&lock);
  return full ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t size) { return allocate(p, size, DEVICE); }
cudaError_t cudaHostAlloc(void **p, size_t size, unsigned flags) { return allocate(p, size, PINNED); }

cudaError_t cudaFree(void *p) {
  if (unsafe()) return cudaErrorStreamCaptureUnsupported;
  pthread_mutex_lock(&lock);
  Block *b = block_of(p);
  if (b) *b = blocks[--count];
  pthread_mutex_unlock(&lock);
  free(p);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p) { return cudaFree(p); }

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *total = memory();
  *available = *total - used();
  return cudaSuccess;
}

static int kind_of(const void *p, int *where) {
  pthread_mutex_lock(&lock);
  Block *b = block_of(p);
  int kind = b ? b->kind : HOST;
  *where = b ? b->device : 0;
  pthread_mutex_unlock(&lock);
  return kind;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  static const int types[] = {cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice};
  memset(a, 0, sizeof *a);
  a->type = types[kind_of(p, &a->device)];
  a->devicePointer = (void *)p;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t s) {
  int where, reads = kind_of(from, &where) == DEVICE && kind_of(to, &where) != DEVICE;
  if (stream_of(s)->capturing) return launched(s);
  if (reads)  // what no kernel has computed: zeros, or true
    memset(to, size == 1, size);
  else
    memmove(to, from, size);
  return launched(s);
}

// streams, events, capture

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority) {
  *s = calloc(1, sizeof(Stream));
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  Stream *own = stream_of(s);
  own->broken = own->capturing;
  return own->capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) { return unsafe(); }
cudaError_t cudaEventQuery(cudaEvent_t e) { return unsafe(); }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { return unsafe(); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { return !(*e = calloc(1, sizeof(Event))); }

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  ((Event *)e)->capture = stream_of(s)->capturing ? stream_of(s)->capture : 0;
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) {
  Stream *own = stream_of(s);
  own->broken |= own->capturing && ((Event *)e)->capture != own->capture;
  return own->broken ? cudaErrorStreamCaptureIsolation : cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
  int before = thread_mode;
  thread_mode = *mode;
  *mode = before;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
  Stream *own = stream_of(s);
  if (own == &main_stream || recording) return cudaErrorStreamCaptureUnsupported;
  *own = (Stream){1, 0, mode, ++captures, pthread_self()};
  recording = own;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
  Stream *own = stream_of(s);
  int broken = own->broken;
  own->capturing = own->broken = 0;
  recording = NULL;
  *graph = broken ? NULL : (cudaGraph_t)anything;
  return broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status) {
  *status = stream_of(s)->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes,
                                     const cudaGraphEdgeData **edges, size_t *n) {
  if (id) *id = stream_of(s)->capture;
  if (graph) *graph = (cudaGraph_t)anything;
  if (n) *n = 0;
  return cudaStreamIsCapturing(s, status);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n) { return !(*n = 1); }

// kernels

static __thread struct { dim3 grid, block; size_t shared; void *stream; } call;

void **__cudaRegisterFatBinary(void *code) { return (void **)anything; }

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  call.grid = grid, call.block = block, call.shared = shared, call.stream = stream;
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = call.grid, *block = call.block, *shared = call.shared, *(void **)stream = call.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(void **kernel, const void *function) { return !(*kernel = (void *)function); }
cudaError_t __cudaLaunchKernel(void *k, dim3 g, dim3 b, void **a, size_t n, cudaStream_t s) { return launched(s); }
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t n, cudaStream_t s) { return launched(s); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **a) { return launched(c->stream); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s) { return launched(s); }
cudaError_t cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t s) { return launched(s); }

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *function) {
  memset(a, 0, sizeof *a);
  a->binaryVersion = a->ptxVersion = capability();
  a->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t s, unsigned u) {
  return !(*n = 2);
}

// devices

cudaError_t cudaGetDeviceCount(int *n) { return !(*n = setting("FAKE_DEVICES", 1)); }
cudaError_t cudaGetDevice(int *d) { return (*d = device, cudaSuccess); }
cudaError_t cudaSetDevice(int d) { return (device = d, cudaSuccess); }
cudaError_t cudaDriverGetVersion(int *version) { return !(*version = 13000); }
cudaError_t cudaRuntimeGetVersion(int *version) { return !(*version = 13000); }
const char *cudaGetErrorString(cudaError_t e) { return e == cudaErrorMemoryAllocation ? "out of memory" : "not allowed"; }
const char *cudaGetErrorName(cudaError_t e) { return cudaGetErrorString(e); }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "no GPU");
  p->major = capability() / 10, p->minor = capability() % 10;
  p->totalGlobalMem = memory();
  p->multiProcessorCount = 40, p->warpSize = 32, p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerBlock = p->sharedMemPerBlockOptin = 49152, p->sharedMemPerMultiprocessor = 102400;
  p->maxGridSize[0] = 1 << 30, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr what, int d) {
  *value = what == cudaDevAttrComputeCapabilityMajor ? capability() / 10
         : what == cudaDevAttrComputeCapabilityMinor ? capability() % 10
         : what == cudaDevAttrMultiProcessorCount    ? 40
         : what == cudaDevAttrMaxGridDimX            ? 1 << 30
                                                     : 1024;
  return cudaSuccess;
}

// the driver, cuBLAS, cuDNN (its version 7 functions, TORCH_CUDNN_V8_API_DISABLED=1) and NCCL

#define CREATES(name) int name(void **made) { return !(*made = anything); }
CREATES(cublasCreate_v2)
CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatmulPreferenceCreate)
CREATES(cublasLtMatrixLayoutCreate)
CREATES(cudnnCreate)
CREATES(cudnnCreateConvolutionDescriptor)
CREATES(cudnnCreateFilterDescriptor)
CREATES(cudnnCreateTensorDescriptor)
CREATES(ncclCommInitRankConfig)

int cuDevicePrimaryCtxGetState(int d, unsigned *flags, int *active) { return !(*active = 1); }
int cuCtxGetCurrent(void **context) { return !(*context = anything); }
int ncclCommGetAsyncError(void *group, int *state) { return *state = 0; }

int cublasLtMatmulAlgoGetHeuristic(void *h, void *o, void *a, void *b, void *c, void *d, void *p, int most, char *found,
                                   int *n) {
  memset(found, 0, 128);
  return !(*n = 1);
}

size_t cudnnGetVersion(void) { return 92400; }
typedef struct { int algorithm, status; float time; size_t memory; int deterministic, math, reserved[3]; } Choice;
#define CHOOSES(name) \
  int name(void *h, void *a, void *b, void *c, void *d, int most, int *n, Choice *found) { \
    *found = (Choice){.algorithm = 1, .deterministic = 1, .math = 3}; \
    return !(*n = 1); \
  }
CHOOSES(cudnnGetConvolutionForwardAlgorithm_v7)
CHOOSES(cudnnGetConvolutionBackwardDataAlgorithm_v7)
CHOOSES(cudnnGetConvolutionBackwardFilterAlgorithm_v7)

#define NEEDS_NO_SPACE(name) \
  int name(void *h, void *a, void *b, void *c, void *d, int algorithm, size_t *size) { return *size = 0; }
NEEDS_NO_SPACE(cudnnGetConvolutionForwardWorkspaceSize)
NEEDS_NO_SPACE(cudnnGetConvolutionBackwardDataWorkspaceSize)
NEEDS_NO_SPACE(cudnnGetConvolutionBackwardFilterWorkspaceSize)
