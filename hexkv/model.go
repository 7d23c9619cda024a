package hexkv

import "context"

// TokenID is an entry of a model's vocabulary.
type TokenID int32

// Model is a loaded GGUF model. All methods may be called by many goroutines at once.
type Model struct{}

// ModelOptions says how to load a model. The zero value and nil load on the CPU with mmap.
type ModelOptions struct {
	GPULayers int  // layers kept on the GPU; negative = all. Without a GPU in the build it has no effect.
	NoMmap    bool // read the file instead of mapping it

	// Progress is called from time to time with the share that is loaded, 0 to 1, by another goroutine's stack: it must
	// not call the model. May be nil.
	Progress func(done float64)
}

// ModelInfo describes a model.
type ModelInfo struct {
	Path            string
	Name            string // general.name of the file; may be empty
	Architecture    string
	Description     string // such as "llama 135M Q4_1"
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
	panic("unimplemented")
}

// Close frees the model once its last session and sampler are closed. It may be called several times.
// Calls hexkv_model_close.
func (m *Model) Close() error { panic("unimplemented") }

// Info describes the model. Calls hexkv_model_get_info.
func (m *Model) Info() ModelInfo { panic("unimplemented") }

// TokenizeOptions says how to read text. The zero value reads it as plain text.
type TokenizeOptions struct {
	AddSpecial   bool // add the begin and end tokens that the model wants
	ParseSpecial bool // read "<|im_start|>" and the like as control tokens; not for text of users
}

// Tokenize turns text into tokens. Fails with [ErrInvalidUTF8]. Calls hexkv_tokenize.
func (m *Model) Tokenize(text string, opts TokenizeOptions) ([]TokenID, error) {
	panic("unimplemented")
}

// Detokenize turns tokens into text; incomplete UTF-8 becomes U+FFFD, control tokens become nothing.
// Fails with [ErrInvalid] for a token outside the vocabulary. Calls hexkv_token_piece.
func (m *Model) Detokenize(tokens []TokenID) (string, error) { panic("unimplemented") }

// Piece returns the bytes of one token, which may be part of a rune. Control tokens are empty unless special.
// Calls hexkv_token_piece.
func (m *Model) Piece(t TokenID, special bool) ([]byte, error) { panic("unimplemented") }

// IsEOG reports whether t ends a reply. Calls hexkv_token_is_eog.
func (m *Model) IsEOG(t TokenID) bool { panic("unimplemented") }

// ApplyTemplate writes messages as the model's chat template wants them, with the start of an assistant's turn if
// addAssistant. Tokenize the result with AddSpecial and ParseSpecial. Fails with [ErrTemplate] or [ErrInvalidUTF8].
// Calls hexkv_chat_apply.
func (m *Model) ApplyTemplate(messages []Message, addAssistant bool) (string, error) {
	panic("unimplemented")
}

// Estimate lays a session out without allocating it. Fails with [ErrInvalidConfig]. Calls hexkv_estimate_memory.
func (m *Model) Estimate(opts *SessionOptions) (MemoryEstimate, error) { panic("unimplemented") }

// NewSession opens a session. Fails with [ErrInvalidConfig], or with [ErrMemory] before anything is allocated when it
// cannot fit. Calls hexkv_session_open.
func (m *Model) NewSession(ctx context.Context, opts *SessionOptions) (*Session, error) {
	panic("unimplemented")
}

// NewSampler opens a sampler. Fails with [ErrInvalidConfig] or [ErrGrammar]. Calls hexkv_sampler_open.
func (m *Model) NewSampler(opts Sampling) (*Sampler, error) { panic("unimplemented") }
