package hexkv

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hexkv/hexkv/binding"
)

// SessionOptions says how to open a session. The zero value and nil are the trained context on a stock f16 cache.
type SessionOptions struct {
	ContextSize int    // tokens, rounded up to a multiple of 256; 0 = as trained
	BatchSize   int    // most tokens of one [Session.DecodeAll], 0 = 2048
	UBatchSize  int    // tokens computed at once, 0 = 512; smaller lets compression act within a prompt
	Threads     int    // 0 = physical cores
	AllLogits   bool   // allow [Session.DecodeAll]; costs compute memory
	KVOnHost    bool   // keep the cache and its attention off the GPU
	Cache       Config // the zero value is stock f16
}

// params converts o, which may be nil.
func (o *SessionOptions) params(op string) (binding.SessionParams, error) {
	if o == nil {
		o = &SessionOptions{}
	}
	var p binding.SessionParams
	for _, f := range []struct {
		name string
		from int
		to   *int32
	}{
		{"ContextSize", o.ContextSize, &p.Ctx}, {"BatchSize", o.BatchSize, &p.Batch}, {"UBatchSize", o.UBatchSize, &p.UBatch},
		{"Threads", o.Threads, &p.Threads},
	} {
		if f.from < math.MinInt32 || f.from > math.MaxInt32 {
			return p, errorf(op, CodeConfig, "%s = %d is out of range; use 0 for the default, or up to %d", f.name, f.from, math.MaxInt32)
		}
		*f.to = int32(f.from)
	}
	p.AllLogits, p.KVOnHost = o.AllLogits, o.KVOnHost
	var err error
	p.Cache, err = o.Cache.binding()
	return p, err
}

// Session is a KV cache over a model, with the tokens in it. It belongs to one goroutine at a time; a call that finds
// another one running fails with [ErrBusy]. Only Close may be called from elsewhere: it cancels and waits.
type Session struct {
	model     *Model
	h         binding.Session
	allLogits bool
	channels  bool // the backbone refines channels, not entries
	cleanup   runtime.Cleanup

	mu      sync.Mutex // taken by every call, with TryLock: a second goroutine is refused, not served later
	closed  bool       // under mu
	tokens  []TokenID  // in the cache, under mu
	changes uint64     // counts changes of the cache, under mu

	closeMu sync.Mutex  // one Close at a time
	closing atomic.Bool // Close has begun
}

func newSession(m *Model, h binding.Session, p *binding.SessionParams) *Session {
	s := &Session{model: m, h: h, allLogits: p.AllLogits, channels: p.Cache.BackboneKind == "channels"}
	s.cleanup = runtime.AddCleanup(s, binding.Session.Close, h) // a net for sessions that are never closed
	return s
}

// lock begins a call; when it returns no error, the caller ends the call with s.mu.Unlock.
func (s *Session) lock(op string) error {
	if !s.mu.TryLock() {
		if s.closing.Load() {
			return closedError(op, "session")
		}
		return errorf(op, CodeBusy, "the session is in use by another goroutine; use one session per goroutine")
	}
	if s.closed || s.closing.Load() {
		s.mu.Unlock()
		return closedError(op, "session")
	}
	return nil
}

// Model returns the session's model.
func (s *Session) Model() *Model { return s.model }

// Close cancels a running call, waits for it and frees the session. It may be called several times, by any goroutine.
// Calls hexkv_session_close.
func (s *Session) Close() error {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if s.closing.Swap(true) {
		return nil
	}
	s.h.Cancel(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.tokens = nil
	s.cleanup.Stop()
	s.h.Close()
	return nil
}

// Decode appends tokens and keeps the logits of the last one. Cancelling ctx stops it within milliseconds, also inside
// a long prompt. Fails with [ErrContextFull] (the session is unchanged), with the context's error, or [ErrInternal];
// after those two the tokens that were completed stay, see [Session.Len]. Calls hexkv_decode.
func (s *Session) Decode(ctx context.Context, tokens []TokenID) error {
	const op = "Session.Decode"
	if err := s.lock(op); err != nil {
		return err
	}
	defer s.mu.Unlock()
	return s.decode(ctx, op, tokens, binding.LogitsLast)
}

// DecodeAll is Decode that keeps the logits of all tokens, at most BatchSize of them. Needs AllLogits.
func (s *Session) DecodeAll(ctx context.Context, tokens []TokenID) error {
	const op = "Session.DecodeAll"
	if err := s.lock(op); err != nil {
		return err
	}
	defer s.mu.Unlock()
	return s.decode(ctx, op, tokens, binding.LogitsAll)
}

// decode runs under s.mu.
func (s *Session) decode(ctx context.Context, op string, tokens []TokenID, logits int) error {
	if ctx.Err() != nil {
		return cancelled(ctx, op, "")
	}
	s.h.Cancel(false)
	if s.closing.Load() { // after Cancel(false), or a Close in between would be forgotten
		return closedError(op, "session")
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.h.Cancel(true)
		close(stopped)
	})
	st := s.h.Decode(raw(tokens), logits)
	if !stop() {
		<-stopped // it must not cancel the next call
	}
	s.changes++
	s.tokens = append(s.tokens, tokens...)
	if past := s.h.Past(); past < len(s.tokens) {
		s.tokens = s.tokens[:past]
	}
	if Code(st.Code) == CodeCancelled {
		if s.closing.Load() {
			return closedError(op, "session")
		}
		return cancelled(ctx, op, st.Text)
	}
	return statusError(op, st)
}

// Logits appends to dst the logits, one per vocabulary entry, of row i of the last decode: 0 to n-1 after DecodeAll,
// -1 for the last. Fails with [ErrNoLogits]. Calls hexkv_logits.
func (s *Session) Logits(dst []float32, i int) ([]float32, error) {
	const op = "Session.Logits"
	if err := s.lock(op); err != nil {
		return dst, err
	}
	defer s.mu.Unlock()
	row, st := s.h.Logits(i, s.model.info.Vocab)
	return append(dst, row...), statusError(op, st)
}

// Len returns how many tokens are in the cache; 0 when closed or busy. Calls hexkv_n_past.
func (s *Session) Len() int {
	if s.lock("Session.Len") != nil {
		return 0
	}
	defer s.mu.Unlock()
	return s.h.Past()
}

// ContextSize returns how many tokens fit; 0 when closed or busy. Calls hexkv_n_ctx.
func (s *Session) ContextSize() int {
	if s.lock("Session.ContextSize") != nil {
		return 0
	}
	defer s.mu.Unlock()
	return s.h.Ctx()
}

// Tokens returns a copy of the tokens in the cache; nil when closed or busy.
func (s *Session) Tokens() []TokenID {
	if s.lock("Session.Tokens") != nil {
		return nil
	}
	defer s.mu.Unlock()
	return slices.Clone(s.tokens)
}

// Truncate keeps the first n tokens and returns how many were kept: n, or 0 where the cache cannot drop its tail
// (recurrent models, a passed sliding window) and was cleared. Calls hexkv_truncate.
func (s *Session) Truncate(n int) (int, error) {
	const op = "Session.Truncate"
	if n < 0 {
		return 0, errorf(op, CodeInvalid, "%d tokens cannot be kept; use 0 or more", n)
	}
	if err := s.lock(op); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	return s.truncate(op, n)
}

// truncate runs under s.mu.
func (s *Session) truncate(op string, n int) (int, error) {
	kept, st := s.h.Truncate(min(n, len(s.tokens)))
	s.changes++
	s.tokens = s.tokens[:min(kept, len(s.tokens))]
	return kept, statusError(op, st)
}

// Clear empties the cache.
func (s *Session) Clear() error {
	_, err := s.Truncate(0)
	return err
}

// Prefill makes the cache hold exactly tokens, reusing the common prefix, and leaves the logits of the last one.
// It returns how many tokens were reused. Fails as Decode; [ErrContextFull] leaves the session unchanged.
func (s *Session) Prefill(ctx context.Context, tokens []TokenID) (reused int, err error) {
	const op = "Session.Prefill"
	if err := s.lock(op); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	return s.prefill(ctx, op, tokens)
}

// prefill runs under s.mu.
func (s *Session) prefill(ctx context.Context, op string, tokens []TokenID) (reused int, err error) {
	if len(tokens) == 0 {
		return 0, errorf(op, CodeInvalid, "there are no tokens to decode")
	}
	if size := s.h.Ctx(); len(tokens) > size {
		return 0, errorf(op, CodeContextFull, "the text has %d tokens, but the context holds %d; shorten it, or open a larger context",
			len(tokens), size)
	}
	for i, t := range tokens { // before the cache loses anything
		if t < 0 || int(t) >= s.model.info.Vocab {
			return 0, errorf(op, CodeInvalid, "token %d at index %d is not in the vocabulary of %d", t, i, s.model.info.Vocab)
		}
	}
	if ctx.Err() != nil {
		return 0, cancelled(ctx, op, "")
	}
	n := 0
	for n < len(tokens)-1 && n < len(s.tokens) && tokens[n] == s.tokens[n] { // the last one is decoded for its logits
		n++
	}
	if reused, err = s.truncate(op, n); err != nil {
		return 0, err
	}
	return reused, s.decode(ctx, op, tokens[reused:], binding.LogitsLast)
}

// Stats returns bytes, refined entries and timings. Calls hexkv_get_stats.
func (s *Session) Stats() (Stats, error) {
	const op = "Session.Stats"
	if err := s.lock(op); err != nil {
		return Stats{}, err
	}
	defer s.mu.Unlock()
	b, st := s.h.Stats()
	stats := statsOf(b)
	stats.Channels = s.channels && stats.HEX
	return stats, statusError(op, st)
}
