package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/progress"
	"github.com/hexkv/hexkv/hexkv"
)

// defaultModel is what a build leaves in build/models.
const defaultModel = "SmolLM2-135M-Instruct.Q4_1.gguf"

// modelPath finds the model: -m, else $HEXRUN_MODEL, else the default model beside the binary.
func modelPath(cmd *cli.Command) (string, error) {
	if path := cmd.String("model"); path != "" {
		return path, nil
	}
	if path := os.Getenv("HEXRUN_MODEL"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("$HEXRUN_MODEL names %s, and there is no such file; check the variable, or name the model with -m", path)
		}
		return path, nil
	}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		path := filepath.Join(filepath.Dir(exe), "..", "models", defaultModel)
		if _, err := os.Stat(path); err == nil {
			return filepath.Clean(path), nil
		}
	}
	return "", usagef("there is no model to load; name one with -m FILE.gguf or $HEXRUN_MODEL, or run make model to get the default one")
}

// openModel loads the model that the flags name, with a progress bar.
func openModel(ctx context.Context, e *env, cmd *cli.Command) (*hexkv.Model, error) {
	path, err := modelPath(cmd)
	if err != nil {
		return nil, err
	}
	layers, err := gpuLayers(cmd)
	if err != nil {
		return nil, err
	}
	showLog(e, cmd.Bool("verbose"))
	bar := progress.New(e.stderr, isTerminal(e.stderr))
	defer bar.Clear()
	return hexkv.OpenModel(ctx, path, &hexkv.ModelOptions{
		GPULayers: layers,
		NoMmap:    cmd.Bool("no-mmap"),
		Progress:  func(done float64) { bar.Set(done, "loading "+filepath.Base(path)) },
	})
}

// showLog sends llama.cpp's log to stderr, or drops it: what matters in it is in the errors.
func showLog(e *env, verbose bool) {
	if !verbose {
		hexkv.SetLog(hexkv.LogError, nil)
		return
	}
	hexkv.SetLog(hexkv.LogInfo, func(_ hexkv.LogLevel, line string) { e.note("%s", line) })
}

// openSession opens a session and says what will not be as asked.
func openSession(ctx context.Context, e *env, m *hexkv.Model, opts *hexkv.SessionOptions) (*hexkv.Session, error) {
	if info := m.Info(); opts.Cache.IsHEX() && !info.HEX {
		e.note("note: no HEX cache for this model: %s; it runs on a stock cache", info.HEXReason)
	}
	s, err := m.NewSession(ctx, opts)
	if err != nil {
		return nil, err
	}
	size := s.ContextSize()
	switch {
	case opts.ContextSize == 0:
		e.note("note: a context of 0 means as trained: %s tokens", human.Count(size))
	case opts.ContextSize != size:
		e.note("note: a context of %s is rounded up to %s tokens", human.Count(opts.ContextSize), human.Count(size))
	}
	if trained := m.Info().TrainedContext; trained > 0 && size > trained {
		e.note("note: the model was trained with %s tokens; what comes after them in a context of %s will make less sense", human.Count(trained), human.Count(size))
	}
	if recent := opts.Cache.Recent; recent != nil && *recent >= size {
		e.note("note: --hex-recent %d covers the whole context of %s tokens: every cell is refined, and takes the bytes of both", *recent, human.Count(size))
	}
	return s, nil
}
