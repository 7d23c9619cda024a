package hexkv

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/hexkv/hexkv/binding"
)

// TokenID is an entry of a model's vocabulary.
type TokenID int32

// raw views tokens as the C side's type.
func raw(tokens []TokenID) []int32 {
	return unsafe.Slice((*int32)(unsafe.SliceData(tokens)), len(tokens))
}

// Model is a loaded GGUF model. All methods may be called by many goroutines at once.
type Model struct {
	mu      sync.RWMutex // held for reading by every call, for writing by Close
	h       binding.Model
	closed  bool
	cleanup runtime.Cleanup
	info    ModelInfo
}

// ModelOptions says how to load a model. The zero value and nil load on the CPU with mmap.
type ModelOptions struct {
	GPULayers int  // layers kept on the GPU; negative = all. Without a GPU in the build it has no effect.
	NoMmap    bool // read the file instead of mapping it

	// Progress is called from time to time, on the goroutine of OpenModel, with the share that is loaded, 0 to 1.
	// May be nil.
	Progress func(done float64)
}

// ModelInfo describes a model.
type ModelInfo struct {
	Path            string
	Name            string // general.name of the file; may be empty
	Architecture    string
	Description     string // such as "llama 256M Q4_1": architecture, size class and file type
	Parameters      uint64
	Bytes           uint64 // of all tensors
	Layers          int
	Heads           int // query heads of the first layer
	KVHeads         int // KV heads of the first layer
	HeadSizeK       int
	HeadSizeV       int
	Embedding       int // width
	TrainedContext  int // tokens
	Vocab           int // tokens
	SlidingWindow   int // tokens, 0 = none
	HasChatTemplate bool
	Recurrent       bool   // has recurrent state: tails cannot be dropped
	HEX             bool   // can use a HEX cache
	HEXReason       string // why not
}

// OpenModel loads the model at path. It fails with [ErrNotFound], [ErrNotGGUF], [ErrTruncated] or [ErrModel], and with
// the context's error when ctx is cancelled. Calls hexkv_model_load.
func OpenModel(ctx context.Context, path string, opts *ModelOptions) (*Model, error) {
	const op = "OpenModel"
	if ctx.Err() != nil {
		return nil, cancelled(ctx, op, "")
	}
	if strings.ContainsRune(path, 0) {
		return nil, errorf(op, CodeInvalid, "the path %q has a NUL byte; check the path", path)
	}
	if opts == nil {
		opts = &ModelOptions{}
	}
	h, s := binding.LoadModel(path, binding.ModelParams{
		GPULayers: int32(max(-1, min(opts.GPULayers, 1<<20))),
		NoMmap:    opts.NoMmap,
		Progress: func(done float32) bool {
			if opts.Progress != nil {
				opts.Progress(float64(done))
			}
			return ctx.Err() == nil
		},
	})
	if err := statusError(op, s); err != nil {
		if Code(s.Code) == CodeCancelled {
			return nil, cancelled(ctx, op, s.Text)
		}
		if e := err.(*Error); e.Code == CodeNotFound {
			_, e.Err = os.Stat(path) // fs.ErrNotExist or fs.ErrPermission
		}
		return nil, err
	}
	i := h.Info()
	clean := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
	m := &Model{h: h, info: ModelInfo{
		Path: path, Name: clean(i.Name), Architecture: clean(i.Arch), Description: clean(i.Desc),
		Parameters: i.Params, Bytes: i.Bytes, Layers: i.Layers, Heads: i.Heads, KVHeads: i.KVHeads,
		HeadSizeK: i.HeadK, HeadSizeV: i.HeadV, Embedding: i.Embedding, TrainedContext: i.TrainedContext, Vocab: i.Vocab,
		SlidingWindow: i.SlidingWindow, HasChatTemplate: i.ChatTemplate, Recurrent: i.Recurrent, HEX: i.HEX, HEXReason: i.HEXReason,
	}}
	m.cleanup = runtime.AddCleanup(m, binding.Model.Close, h) // a net for models that are never closed
	return m, nil
}

// Close frees the model once its last session and sampler are closed. It waits for running calls, and may be called
// several times. Calls hexkv_model_close.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.cleanup.Stop()
		m.h.Close()
	}
	return nil
}

// use begins a call on the C handle; when it returns no error, the caller ends the call with m.mu.RUnlock.
func (m *Model) use(op string) error {
	m.mu.RLock()
	if m.closed {
		m.mu.RUnlock()
		return closedError(op, "model")
	}
	return nil
}

// Info describes the model. Calls hexkv_model_get_info, once when the model is opened.
func (m *Model) Info() ModelInfo { return m.info }

// TokenizeOptions says how to read text. The zero value reads it as plain text.
type TokenizeOptions struct {
	AddSpecial   bool // add the begin and end tokens that the model wants
	ParseSpecial bool // read "<|im_start|>" and the like as control tokens; not for text of users
}

// Tokenize turns text into tokens. Fails with [ErrInvalidUTF8]. Calls hexkv_tokenize.
func (m *Model) Tokenize(text string, opts TokenizeOptions) ([]TokenID, error) {
	const op = "Model.Tokenize"
	if err := m.use(op); err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	// At least as many as nearly all texts need; a second call when not.
	tokens := make([]TokenID, len(text)/2+16)
	for {
		n, s := m.h.Tokenize(text, opts.AddSpecial, opts.ParseSpecial, raw(tokens))
		if n > len(tokens) {
			tokens = make([]TokenID, n)
			continue
		}
		return tokens[:n:n], statusError(op, s)
	}
}

// Piece returns the bytes of one token, which may be part of a rune. Control tokens are empty unless special.
// Fails with [ErrInvalid] for a token outside the vocabulary. Calls hexkv_token_piece.
func (m *Model) Piece(t TokenID, special bool) ([]byte, error) {
	const op = "Model.Piece"
	if err := m.use(op); err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	if t < 0 || int(t) >= m.info.Vocab {
		return nil, errorf(op, CodeInvalid, "token %d is not in the vocabulary of %d", t, m.info.Vocab)
	}
	var small [64]byte
	buf := small[:]
	for {
		n, s := m.h.TokenPiece(int32(t), special, buf)
		if n > len(buf) {
			buf = make([]byte, n)
			continue
		}
		return append([]byte(nil), buf[:n]...), statusError(op, s)
	}
}

// Detokenize turns tokens into text; bytes that are not UTF-8 become U+FFFD, control tokens become nothing.
// Fails as Piece. Calls hexkv_token_piece.
func (m *Model) Detokenize(tokens []TokenID) (string, error) {
	var b strings.Builder
	for _, t := range tokens {
		piece, err := m.Piece(t, false)
		if err != nil {
			return "", err
		}
		b.Write(piece)
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD"), nil
}

// IsEOG reports whether t ends a reply; false on a closed model. Calls hexkv_token_is_eog.
func (m *Model) IsEOG(t TokenID) bool {
	if m.use("Model.IsEOG") != nil {
		return false
	}
	defer m.mu.RUnlock()
	return m.h.IsEOG(int32(t))
}

// ApplyTemplate writes messages as the model's chat template wants them, with the start of an assistant's turn if
// addAssistant. Tokenize the result with AddSpecial and ParseSpecial. Fails with [ErrTemplate] or [ErrInvalidUTF8].
// Calls hexkv_chat_apply.
func (m *Model) ApplyTemplate(messages []Message, addAssistant bool) (string, error) {
	const op = "Model.ApplyTemplate"
	if err := m.use(op); err != nil {
		return "", err
	}
	defer m.mu.RUnlock()
	size := 4096
	msgs := make([]binding.Message, len(messages))
	for i, msg := range messages {
		if strings.ContainsRune(msg.Role, 0) {
			return "", errorf(op, CodeTemplate, "message %d has the role %q; use system, user or assistant", i, msg.Role)
		}
		msgs[i] = binding.Message(msg)
		size += len(msg.Role) + len(msg.Content) + 64
	}
	buf := make([]byte, size)
	for {
		n, s := m.h.ApplyTemplate(msgs, addAssistant, buf)
		if n > len(buf) {
			buf = make([]byte, n)
			continue
		}
		return string(buf[:n]), statusError(op, s)
	}
}

// Estimate lays a session out without allocating it. Fails with [ErrInvalidConfig]. Calls hexkv_estimate_memory.
func (m *Model) Estimate(opts *SessionOptions) (MemoryEstimate, error) {
	const op = "Model.Estimate"
	p, err := opts.params(op)
	if err != nil {
		return MemoryEstimate{}, err
	}
	if err := m.use(op); err != nil {
		return MemoryEstimate{}, err
	}
	defer m.mu.RUnlock()
	e, s := m.h.EstimateMemory(&p)
	if err := statusError(op, s); err != nil {
		return MemoryEstimate{}, err
	}
	return MemoryEstimate{
		ContextSize: e.Ctx, BaseK: e.BaseK, BaseV: e.BaseV, Refined: e.Refined, State: e.State, KV: e.KV,
		Compute: e.Compute, Output: e.Output, Total: e.Total, Model: e.Model, Available: e.Available,
		KVF16: e.KVF16, KVQ8_0: e.KVQ8, KVQ4_0: e.KVQ4, BitsPerElement: e.BitsPerElement,
	}, nil
}

// NewSession opens a session. Fails with [ErrInvalidConfig], or with [ErrMemory] before anything is allocated when it
// cannot fit. Calls hexkv_session_open.
func (m *Model) NewSession(ctx context.Context, opts *SessionOptions) (*Session, error) {
	const op = "Model.NewSession"
	if ctx.Err() != nil {
		return nil, cancelled(ctx, op, "")
	}
	p, err := opts.params(op)
	if err != nil {
		return nil, err
	}
	if err := m.use(op); err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	h, s := m.h.OpenSession(&p)
	if err := statusError(op, s); err != nil {
		return nil, err
	}
	return newSession(m, h, &p), nil
}

// NewSampler opens a sampler. Fails with [ErrInvalidConfig] or [ErrGrammar]. Calls hexkv_sampler_open.
func (m *Model) NewSampler(o Sampling) (*Sampler, error) {
	const op = "Model.NewSampler"
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if strings.ContainsRune(o.Grammar, 0) {
		return nil, errorf(op, CodeGrammar, "the grammar has a NUL byte; remove it")
	}
	if err := m.use(op); err != nil {
		return nil, err
	}
	defer m.mu.RUnlock()
	h, s := m.h.OpenSampler(&binding.SamplerParams{
		Temperature: o.Temperature, TopP: o.TopP, MinP: o.MinP, Repeat: o.RepeatPenalty, Frequency: o.FrequencyPenalty,
		Presence: o.PresencePenalty, TopK: int32(o.TopK), LastN: int32(o.PenaltyLastN), Seed: o.Seed, Grammar: o.Grammar,
	})
	if err := statusError(op, s); err != nil {
		return nil, err
	}
	return newSampler(h), nil
}
