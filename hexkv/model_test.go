package hexkv

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestModelInfo(t *testing.T) {
	i := testModel(t).Info()
	assert.Equal(t, modelPath(), i.Path)
	assert.NotEmpty(t, i.Architecture)
	assert.Positive(t, i.Layers)
	assert.Positive(t, i.KVHeads)
	assert.Zero(t, i.Heads%i.KVHeads)
	assert.Positive(t, i.HeadSizeK)
	assert.Positive(t, i.Vocab)
	assert.Positive(t, i.Bytes)
	if os.Getenv("HEXKV_TEST_MODEL") == "" { // the default model
		assert.Equal(t, []int{30, 9, 3, 64, 64, 8192, 49152}, []int{i.Layers, i.Heads, i.KVHeads, i.HeadSizeK, i.HeadSizeV, i.TrainedContext, i.Vocab})
		assert.True(t, i.HasChatTemplate)
	}
	assert.NotEqual(t, i.HEX, i.HEXReason != "")
	v := Version()
	assert.NotEmpty(t, v.Version)
	assert.NotEmpty(t, v.Llama)
}

func TestTokens(t *testing.T) {
	m := testModel(t)
	for _, text := range []string{"", "Hello, world!", "héllo €😀 日本語", strings.Repeat("1 2 3\n", 500), "<|im_start|>"} {
		tokens, err := m.Tokenize(text, TokenizeOptions{})
		require.NoError(t, err)
		got, err := m.Detokenize(tokens)
		require.NoError(t, err)
		assert.Equal(t, text, strings.TrimPrefix(got, " "), "plain text comes back")
	}
	plain, err := m.Tokenize("<|im_start|>", TokenizeOptions{})
	require.NoError(t, err)
	control, err := m.Tokenize("<|im_start|>", TokenizeOptions{ParseSpecial: true})
	require.NoError(t, err)
	assert.Greater(t, len(plain), len(control))
	for _, bad := range []TokenID{-1, TokenID(m.Info().Vocab), 1 << 30} {
		_, err := m.Piece(bad, true)
		assert.ErrorIs(t, err, ErrInvalid)
		_, err = m.Detokenize([]TokenID{bad})
		assert.ErrorIs(t, err, ErrInvalid)
		assert.False(t, m.IsEOG(bad))
	}
}

func TestModelIsShared(t *testing.T) {
	m := testModel(t)
	want := tokenize(t, m, "many goroutines read one model")
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 5 {
				got, err := m.Tokenize("many goroutines read one model", TokenizeOptions{AddSpecial: true})
				assert.NoError(t, err)
				assert.Equal(t, want, got)
				_, err = m.ApplyTemplate([]Message{{RoleUser, "hello"}}, true)
				assert.NoError(t, err)
			}
			s, err := m.NewSession(context.Background(), &SessionOptions{ContextSize: 256, Threads: 1})
			if assert.NoError(t, err) {
				assert.NoError(t, s.Decode(context.Background(), want))
				assert.NoError(t, s.Close())
			}
		}()
	}
	wg.Wait()
}

func TestModelClose(t *testing.T) {
	testModel(t)
	var progress []float64
	m, err := OpenModel(context.Background(), modelPath(), &ModelOptions{Progress: func(x float64) { progress = append(progress, x) }})
	require.NoError(t, err)
	assert.NotEmpty(t, progress)
	assert.IsNonDecreasing(t, progress)
	s, err := m.NewSession(context.Background(), &SessionOptions{ContextSize: 256, Threads: 1})
	require.NoError(t, err)
	tokens := tokenize(t, m, "The model outlives its Close while a session is open.")
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	assert.NoError(t, s.Decode(context.Background(), tokens))
	_, err = m.Tokenize("x", TokenizeOptions{})
	assert.ErrorIs(t, err, ErrClosed)
	_, err = m.NewSession(context.Background(), nil)
	assert.ErrorIs(t, err, ErrClosed)
	_, err = m.NewSampler(Sampling{})
	assert.ErrorIs(t, err, ErrClosed)
	_, err = m.Estimate(nil)
	assert.ErrorIs(t, err, ErrClosed)
	for _, err := range s.Generate(context.Background(), tokens, nil) {
		assert.ErrorIs(t, err, ErrClosed)
	}
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	assert.ErrorIs(t, s.Decode(context.Background(), tokens), ErrClosed)
	assert.Zero(t, s.Len())
}

func TestModelLoadIsCancelled(t *testing.T) {
	testModel(t)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := OpenModel(ctx, modelPath(), &ModelOptions{Progress: func(x float64) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	assert.Contains(t, err.Error(), filepath.Base(modelPath()))
	_, err = OpenModel(ctx, modelPath(), nil)
	require.ErrorIs(t, err, context.Canceled)
}

// A handle that is forgotten is freed, and not twice.
func TestCleanup(t *testing.T) {
	m := tiny{arch: "llama"}.open(t)
	for range 3 {
		s, err := m.NewSession(context.Background(), &SessionOptions{ContextSize: 256, Threads: 1})
		require.NoError(t, err)
		g, err := m.NewSampler(Sampling{})
		require.NoError(t, err)
		_, _ = s, g
		runtime.GC()
	}
}

func TestEstimate(t *testing.T) {
	m := testModel(t)
	i := m.Info()
	for _, c := range []Config{CacheF16, CacheQ8_0, CacheQ4_0, {TypeK: "q8_0", TypeV: "q4_0"}} {
		opts := &SessionOptions{ContextSize: 1000, Cache: c}
		e, err := m.Estimate(opts)
		require.NoError(t, err)
		assert.Equal(t, 1024, e.ContextSize)
		assert.Equal(t, e.KV, e.BaseK+e.BaseV+e.Refined+e.State)
		assert.Equal(t, e.Total, e.KV+e.Compute+e.Output)
		assert.Equal(t, i.Bytes, e.Model)
		elements := uint64(1024 * i.Layers * i.KVHeads * (i.HeadSizeK + i.HeadSizeV))
		if i.SlidingWindow == 0 && !i.Recurrent {
			assert.Equal(t, elements*2, e.KVF16)
		}
		assert.InDelta(t, 8.5/16, float64(e.KVQ8_0)/float64(e.KVF16), 1e-3)
		assert.InDelta(t, 4.5/16, float64(e.KVQ4_0)/float64(e.KVF16), 1e-3)

		// What was allocated is what was estimated.
		s, err := m.NewSession(context.Background(), opts)
		require.NoError(t, err)
		st, err := s.Stats()
		require.NoError(t, err)
		require.NoError(t, s.Close())
		assert.Equal(t, e.KV, st.KV, c)
		assert.Equal(t, e.Compute, st.Compute, c)
		assert.Equal(t, e.Output, st.Output, c)
		assert.Equal(t, [2]uint64{e.BaseK, e.BaseV}, [2]uint64{st.BaseK, st.BaseV}, c)
		assert.InDelta(t, e.BitsPerElement, st.BitsPerElement, 1e-6, c)
	}
}

func TestEstimateHEX(t *testing.T) {
	m := testModel(t)
	for _, c := range []Config{CacheTiny, CacheCompact, CacheBalanced, CacheQuality, CachePaper, {Preset: "off"}} {
		opts := &SessionOptions{ContextSize: 2048, Cache: c}
		e, err := m.Estimate(opts)
		require.NoError(t, err)
		s, err := m.NewSession(context.Background(), opts)
		require.NoError(t, err)
		st, err := s.Stats()
		require.NoError(t, err)
		require.NoError(t, s.Close())
		assert.Equal(t, []uint64{e.BaseK, e.BaseV, e.Refined, e.State, e.KV}, []uint64{st.BaseK, st.BaseV, st.Refined, st.State, st.KV}, "%v", c)
		assert.InDelta(t, e.BitsPerElement, st.BitsPerElement, 1e-3, "%v", c)
		assert.Equal(t, c.IsHEX(), st.HEX, "%v", c)
		if c.IsHEX() {
			assert.Less(t, e.KV, e.KVQ8_0, "%v", c)
		} else {
			assert.Equal(t, e.KVF16, e.KV)
		}
	}
}

func TestLog(t *testing.T) {
	m := tiny{arch: "llama"}.open(t)
	var mu sync.Mutex
	var lines []string
	SetLog(LogInfo, func(level LogLevel, line string) {
		mu.Lock()
		defer mu.Unlock()
		assert.GreaterOrEqual(t, level, LogInfo)
		assert.NotContains(t, line, "\n")
		lines = append(lines, line)
	})
	s, err := m.NewSession(context.Background(), &SessionOptions{ContextSize: 256, Threads: 1})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	SetLog(LogInfo, nil)
	n := len(lines)
	assert.Positive(t, n)
	s, err = m.NewSession(context.Background(), &SessionOptions{ContextSize: 256, Threads: 1})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	assert.Len(t, lines, n, "no lines after SetLog(nil)")
}
