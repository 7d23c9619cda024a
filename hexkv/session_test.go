package hexkv

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var background = context.Background()

func lastLogits(t testing.TB, s *Session) []float32 {
	t.Helper()
	x, err := s.Logits(nil, -1)
	require.NoError(t, err)
	require.Len(t, x, s.Model().Info().Vocab)
	return x
}

func maxDiff(a, b []float32) float64 {
	worst := 0.0
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i]-b[i])))
	}
	return worst
}

func TestDecodeAndLogits(t *testing.T) {
	s := testSession(t, SessionOptions{AllLogits: true, BatchSize: 128, UBatchSize: 32})
	tokens := tokenize(t, s.Model(), strings.Repeat("The cache keeps what attention needs. ", 10))
	tokens = tokens[:70] // several ubatches
	_, err := s.Logits(nil, -1)
	assert.ErrorIs(t, err, ErrNoLogits)

	require.NoError(t, s.Decode(background, tokens))
	assert.Equal(t, len(tokens), s.Len())
	assert.Equal(t, tokens, s.Tokens())
	last := lastLogits(t, s)
	_, err = s.Logits(nil, 0)
	assert.ErrorIs(t, err, ErrNoLogits)
	same, err := s.Logits(nil, len(tokens)-1)
	require.NoError(t, err)
	assert.Equal(t, last, same)

	require.NoError(t, s.Clear())
	assert.Zero(t, s.Len())
	require.NoError(t, s.DecodeAll(background, tokens))
	assert.Less(t, maxDiff(last, lastLogits(t, s)), 1e-3)
	row, err := s.Logits(make([]float32, 0, 1<<16), 30)
	require.NoError(t, err)
	_, err = s.Logits(nil, len(tokens))
	assert.ErrorIs(t, err, ErrNoLogits)

	// Truncation: the next logits are those of the prefix.
	kept, err := s.Truncate(30)
	require.NoError(t, err)
	assert.Equal(t, 30, kept)
	assert.Equal(t, tokens[:30], s.Tokens())
	_, err = s.Logits(nil, -1)
	assert.ErrorIs(t, err, ErrNoLogits)
	require.NoError(t, s.Decode(background, tokens[30:31]))
	assert.Less(t, maxDiff(row, lastLogits(t, s)), 0.1)

	require.ErrorIs(t, s.DecodeAll(background, make([]TokenID, 129)), ErrInvalid, "more than the batch size")
	require.ErrorIs(t, s.Decode(background, nil), ErrInvalid)
	require.ErrorIs(t, s.Decode(background, []TokenID{-1}), ErrInvalid)
	require.ErrorIs(t, s.Decode(background, []TokenID{1 << 30}), ErrInvalid)
	_, err = s.Truncate(-1)
	require.ErrorIs(t, err, ErrInvalid)
	assert.Equal(t, 31, s.Len())

	st, err := s.Stats()
	require.NoError(t, err)
	assert.Equal(t, 31, st.Used)
	assert.Equal(t, 2*len(tokens), st.PrefillTokens)
	assert.Equal(t, 1, st.DecodeTokens)
	assert.Positive(t, st.PrefillRate())
	assert.Positive(t, st.DecodeRate())
}

func TestAllLogitsMustBeAskedFor(t *testing.T) {
	s := testSession(t, SessionOptions{})
	require.ErrorIs(t, s.DecodeAll(background, []TokenID{1, 2}), ErrInvalidConfig)
}

func TestPrefillReusesThePrefix(t *testing.T) {
	s := testSession(t, SessionOptions{})
	tokens := tokenize(t, s.Model(), "One two three four five six seven eight nine ten eleven twelve.")
	reused, err := s.Prefill(background, tokens)
	require.NoError(t, err)
	assert.Zero(t, reused)
	want := lastLogits(t, s)

	reused, err = s.Prefill(background, tokens)
	require.NoError(t, err)
	assert.Equal(t, len(tokens)-1, reused, "the last token is decoded again for its logits")
	assert.Less(t, maxDiff(want, lastLogits(t, s)), 0.1)

	other := append(append([]TokenID{}, tokens[:8]...), tokens[2:5]...)
	reused, err = s.Prefill(background, other)
	require.NoError(t, err)
	assert.Equal(t, 8, reused)
	assert.Equal(t, other, s.Tokens())

	_, err = s.Prefill(background, nil)
	assert.ErrorIs(t, err, ErrInvalid)
	_, err = s.Prefill(background, []TokenID{-5})
	assert.ErrorIs(t, err, ErrInvalid)
	_, err = s.Prefill(background, make([]TokenID, s.ContextSize()+1))
	assert.ErrorIs(t, err, ErrContextFull)
	sentence(t, err)
	assert.Equal(t, other, s.Tokens(), "nothing was lost")
}

func TestFullContext(t *testing.T) {
	s := testSession(t, SessionOptions{ContextSize: 256})
	tokens := tokenize(t, s.Model(), strings.Repeat("word ", 300))[:250]
	require.NoError(t, s.Decode(background, tokens))
	err := s.Decode(background, tokens[:7])
	require.ErrorIs(t, err, ErrContextFull)
	sentence(t, err)
	assert.Equal(t, 250, s.Len(), "the session is unchanged")
	require.NoError(t, s.Decode(background, tokens[:6]), "and goes on to the last cell")
	require.ErrorIs(t, s.Decode(background, tokens[:1]), ErrContextFull)

	var n int
	var last error
	for tok, err := range s.Generate(background, tokens, &GenerateOptions{IgnoreEOG: true}) {
		if last = err; err == nil {
			assert.Equal(t, 250+n, tok.Pos)
			n++
		}
	}
	require.ErrorIs(t, last, ErrContextFull)
	assert.Equal(t, 7, n, "six cells, and a last token that needs none")
	assert.Equal(t, 256, s.Len())
	_, err = s.Truncate(10)
	require.NoError(t, err)
	require.NoError(t, s.Decode(background, tokens[:1]))
}

func TestCancelledPrefill(t *testing.T) {
	s := testSession(t, SessionOptions{ContextSize: 4096, UBatchSize: 64})
	tokens := tokenize(t, s.Model(), strings.Repeat("A long prompt that takes its time. ", 450))[:3500]

	start := time.Now()
	require.NoError(t, s.Decode(background, tokens[:128]))
	ctx, cancel := context.WithCancel(background)
	delay := 3 * time.Since(start) // long before the end
	time.AfterFunc(delay, cancel)
	start = time.Now()
	err := s.Decode(ctx, tokens[128:])
	took := time.Since(start)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, ErrCancelled)
	assert.Less(t, took, 2*delay+5*time.Second)
	done := s.Len()
	assert.Less(t, done, len(tokens))
	assert.Equal(t, tokens[:done], s.Tokens(), "what was completed stays")

	// The session goes on as if nothing had happened.
	short := tokens[:100]
	_, err = s.Prefill(background, short)
	require.NoError(t, err)
	got := lastLogits(t, s)
	other := testSession(t, SessionOptions{ContextSize: 4096, UBatchSize: 64}) // the same without a cancellation
	require.NoError(t, other.Decode(background, tokens[:done]))
	_, err = other.Prefill(background, short)
	require.NoError(t, err)
	assert.Equal(t, lastLogits(t, other), got)

	ctx, cancel = context.WithTimeout(background, time.Millisecond)
	defer cancel()
	<-ctx.Done()
	require.ErrorIs(t, s.Decode(ctx, short), context.DeadlineExceeded)
	require.NoError(t, s.Decode(background, short), "an old cancellation does not stop a new call")
}

func TestGenerate(t *testing.T) {
	s := testSession(t, SessionOptions{})
	prompt := tokenize(t, s.Model(), "1, 2, 3, 4, 5, 6,")
	run := func(opts *GenerateOptions) (text string, ids []TokenID) {
		t.Helper()
		for tok, err := range s.Generate(background, prompt, opts) {
			require.NoError(t, err)
			text += tok.Text
			ids = append(ids, tok.ID)
		}
		return text, ids
	}
	text, ids := run(&GenerateOptions{MaxTokens: 8})
	assert.Len(t, ids, 8)
	assert.Contains(t, text, "7")
	again, _ := run(&GenerateOptions{MaxTokens: 8})
	assert.Equal(t, text, again, "greedy is deterministic, whatever was cached")

	seeded := &GenerateOptions{MaxTokens: 8, Sampling: Sampling{Temperature: 1.5, TopP: 0.99, Seed: 7}}
	a, _ := run(seeded)
	b, _ := run(seeded)
	assert.Equal(t, a, b, "a seed is deterministic")

	text, _ = run(&GenerateOptions{MaxTokens: 20, Sampling: Sampling{Grammar: `root ::= " yes" | " no"`}})
	assert.Contains(t, []string{" yes", " no"}, text)

	penal, _ := run(&GenerateOptions{MaxTokens: 8, Sampling: Sampling{RepeatPenalty: 2, PresencePenalty: 1, PenaltyLastN: 128}})
	assert.NotEqual(t, again, penal)

	n := 0
	for _, err := range s.Generate(background, prompt, nil) {
		require.NoError(t, err)
		if n++; n == 3 {
			break
		}
	}
	assert.Equal(t, 3, n)

	for _, c := range []struct {
		opts GenerateOptions
		want error
	}{
		{GenerateOptions{MaxTokens: -1}, ErrInvalidConfig},
		{GenerateOptions{Sampling: Sampling{Temperature: -1}}, ErrInvalidConfig},
		{GenerateOptions{Sampling: Sampling{Grammar: "root"}}, ErrGrammar},
	} {
		n := 0
		for _, err := range s.Generate(background, prompt, &c.opts) {
			require.ErrorIs(t, err, c.want)
			n++
		}
		assert.Equal(t, 1, n, "an error is the last element")
	}
}

func TestGenerateIsCancelled(t *testing.T) {
	s := testSession(t, SessionOptions{})
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	n := 0
	var last error
	for _, err := range s.Generate(ctx, tokenize(t, s.Model(), "Once upon a time"), &GenerateOptions{IgnoreEOG: true}) {
		if last = err; err == nil {
			if n++; n == 4 {
				cancel()
			}
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	assert.Equal(t, 4, n)
}

func TestMisuse(t *testing.T) {
	s := testSession(t, SessionOptions{})
	tokens := tokenize(t, s.Model(), "two goroutines, one session")
	require.NoError(t, s.lock("another goroutine's call"))
	_, err := s.Stats()
	require.ErrorIs(t, err, ErrBusy)
	sentence(t, err)
	require.ErrorIs(t, s.Decode(background, tokens), ErrBusy)
	require.ErrorIs(t, s.Clear(), ErrBusy)
	assert.Zero(t, s.Len())
	assert.Nil(t, s.Tokens())
	s.mu.Unlock()
	require.NoError(t, s.Decode(background, tokens))

	for _, err := range s.Generate(background, tokens[:5], nil) {
		if err == nil {
			err = s.Clear()
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrInvalid, "the body changed the session")
	}
}

func TestCloseStopsARunningCall(t *testing.T) {
	m := testModel(t)
	s, err := m.NewSession(background, &SessionOptions{ContextSize: 4096, Threads: 1})
	require.NoError(t, err)
	tokens := tokenize(t, m, strings.Repeat("close me ", 2000))[:3500]
	done := make(chan error)
	go func() { done <- s.Decode(background, tokens) }()
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-done, ErrClosed)
	require.ErrorIs(t, s.Decode(background, tokens), ErrClosed)
}

func TestSamplerAlone(t *testing.T) {
	s := testSession(t, SessionOptions{})
	m := s.Model()
	g, err := m.NewSampler(Sampling{Grammar: `root ::= [a-z]+`})
	require.NoError(t, err)
	defer g.Close()
	_, err = g.Sample(s, -1)
	require.ErrorIs(t, err, ErrNoLogits)
	require.NoError(t, s.Decode(background, tokenize(t, m, "abc")))
	id, err := g.Sample(s, -1)
	require.NoError(t, err)
	piece, err := m.Piece(id, false)
	require.NoError(t, err)
	assert.Regexp(t, `^[a-z]+$`, string(piece))
	require.NoError(t, g.Accept(id, true))
	digit, err := m.Tokenize("7", TokenizeOptions{})
	require.NoError(t, err)
	require.ErrorIs(t, g.Accept(digit[len(digit)-1], true), ErrGrammar)
	require.NoError(t, g.Accept(digit[len(digit)-1], false), "a token of the prompt")
	require.ErrorIs(t, g.Accept(-1, true), ErrInvalid)
	g.Reset()
	require.NoError(t, g.Accept(id, true))
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
	_, err = g.Sample(s, -1)
	require.ErrorIs(t, err, ErrClosed)
}

// hex:off is stock f16, to the last bit.
func TestOffIsStock(t *testing.T) {
	tokens := []TokenID(nil)
	var want []float32
	for _, c := range []Config{CacheF16, {Preset: "off"}, {}} {
		s := testSession(t, SessionOptions{Cache: c})
		if tokens == nil {
			tokens = tokenize(t, s.Model(), strings.Repeat("bit for bit ", 20))
		}
		require.NoError(t, s.Decode(background, tokens))
		if got := lastLogits(t, s); want == nil {
			want = got
		} else {
			assert.Equal(t, want, got)
		}
	}
}

func TestCaches(t *testing.T) {
	specs := []string{"q8_0", "q4_0", "q8_0/q4_0", "hex:quality", "hex:balanced", "hex:compact", "hex:tiny", "hex:paper:heavy=0.1",
		"hex4/hex3", "hex:tiny:refine=none", "hex:paper:backbone_kind=channels"}
	var tokens []TokenID
	for _, spec := range specs {
		c, err := ParseConfig(spec)
		require.NoError(t, err)
		s := testSession(t, SessionOptions{ContextSize: 1024, UBatchSize: 64, Cache: c})
		if tokens == nil {
			tokens = tokenize(t, s.Model(), strings.Repeat("The quick brown fox jumps over the lazy dog. ", 60))[:500]
		}
		require.NoError(t, s.Decode(background, tokens), spec)
		x := lastLogits(t, s)
		for _, v := range x {
			require.False(t, math.IsNaN(float64(v)), spec)
		}
		st, err := s.Stats()
		require.NoError(t, err)
		assert.Equal(t, c.IsHEX(), st.HEX, spec)
		if c.IsHEX() && c.Refine != "none" { // every region is in use
			assert.Positive(t, st.RefinedRing, spec)
			assert.Positive(t, st.RefinedHeavy, spec)
			assert.Equal(t, c.Preset == "paper", st.RefinedStatic > 0, spec)
			assert.LessOrEqual(t, st.RefinedEntries(), st.Entries, spec)
			assert.Equal(t, c.BackboneKind == "channels", st.Channels, spec)
		}
	}
}
