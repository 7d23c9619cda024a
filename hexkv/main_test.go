package hexkv

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// modelPath finds the model that tests run on; empty when it is not there.
func modelPath() string {
	path := os.Getenv("HEXKV_TEST_MODEL")
	if path == "" {
		path = filepath.Join("..", "build", "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

var shared struct {
	once  sync.Once
	model *Model
	err   error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.model != nil {
		shared.model.Close()
	}
	os.Exit(code)
}

// testModel returns the model that all tests share, and skips the test without it.
func testModel(t testing.TB) *Model {
	t.Helper()
	path := modelPath()
	if path == "" {
		t.Skip("the test model is not there: run make model, or set HEXKV_TEST_MODEL to a small GGUF file")
	}
	shared.once.Do(func() { shared.model, shared.err = OpenModel(context.Background(), path, nil) })
	require.NoError(t, shared.err)
	return shared.model
}

// testSession opens a session that the test closes.
func testSession(t testing.TB, opts SessionOptions) *Session {
	t.Helper()
	m := testModel(t)
	if opts.ContextSize == 0 {
		opts.ContextSize = 512
	}
	if opts.Threads == 0 {
		opts.Threads = 1 // ggml's threads spin: more of them than free cores are far slower
	}
	s, err := m.NewSession(context.Background(), &opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func tokenize(t testing.TB, m *Model, text string) []TokenID {
	t.Helper()
	tokens, err := m.Tokenize(text, TokenizeOptions{AddSpecial: true})
	require.NoError(t, err)
	return tokens
}
