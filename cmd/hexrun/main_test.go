package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asProgram is set in processes that are hexrun, not a test.
const asProgram = "HEXRUN_TEST_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	for _, v := range os.Environ() { // a user's settings must not matter
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "LLAMA_ARG_") || name == "HEXRUN_MODEL" {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

// needModel returns the path of the default model, and skips the test without it.
func needModel(t *testing.T) string {
	t.Helper()
	path := os.Getenv("HEXKV_TEST_MODEL")
	if path == "" {
		path = filepath.Join("..", "..", "build", "models", defaultModel)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("the test model is not there: run make model, or set HEXKV_TEST_MODEL to a small GGUF file")
	}
	return path
}

// command prepares hexrun as a process of one thread on the test model, if there is one.
func command(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"=1", "LLAMA_ARG_THREADS=1")
	if path := os.Getenv("HEXKV_TEST_MODEL"); path != "" {
		c.Env = append(c.Env, "HEXRUN_MODEL="+path)
	} else {
		c.Env = append(c.Env, "HEXRUN_MODEL="+filepath.Join("..", "..", "build", "models", defaultModel))
	}
	return c
}

// hexrun runs it to the end.
func hexrun(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	c := command(args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	require.NoError(t, c.Start())
	code = wait(t, c)
	require.NotContains(t, errs.String(), "goroutine ", "a stack trace")
	require.NotContains(t, errs.String(), "DATA RACE")
	return out.String(), errs.String(), code
}

// wait returns the exit code of a process that has started.
func wait(t *testing.T, c *exec.Cmd) int {
	t.Helper()
	stop := time.AfterFunc(5*time.Minute, func() { c.Process.Kill() })
	defer stop.Stop()
	err := c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		require.True(t, exit.Exited(), "killed: %v", err)
		return exit.ExitCode()
	}
	require.NoError(t, err)
	return 0
}

// watch copies a stream and calls found once, when text has come.
func watch(r io.Reader, text string, found func()) *bytes.Buffer {
	var all bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		all.Write(buf[:n])
		if found != nil && strings.Contains(all.String(), text) {
			found()
			found = nil
		}
		if err != nil {
			return &all
		}
	}
}

// temp writes a file.
func temp(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}
