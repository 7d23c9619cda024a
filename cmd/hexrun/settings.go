package main

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

// given returns the value of a flag that was given, else nil.
func given[T any](cmd *cli.Command, name string, value func(string) T) *T {
	if !cmd.IsSet(name) {
		return nil
	}
	return hexkv.Ptr(value(name))
}

// cacheConfig reads [cacheFlags].
func cacheConfig(cmd *cli.Command) (hexkv.Config, error) {
	c := hexkv.Config{
		Preset: cmd.String("hex"), TypeK: cmd.String("cache-type-k"), TypeV: cmd.String("cache-type-v"),
		Refine: cmd.String("hex-refine"), BackboneKind: cmd.String("hex-backbone-kind"),
		Sink: given(cmd, "hex-sink", cmd.Int), Recent: given(cmd, "hex-recent", cmd.Int),
		Heavy: given(cmd, "hex-heavy", cmd.Float), Backbone: given(cmd, "hex-backbone", cmd.Float),
		Seed: given(cmd, "hex-seed", cmd.Uint32), Mean: given(cmd, "hex-mean", cmd.Int),
		HalfLife: given(cmd, "hex-half-life", cmd.Int), Unbias: given(cmd, "hex-unbias", cmd.Float),
	}
	return c, c.Validate()
}

// sessionOptions reads [contextFlags] and [cacheFlags].
func sessionOptions(cmd *cli.Command) (*hexkv.SessionOptions, error) {
	cache, err := cacheConfig(cmd)
	if err != nil {
		return nil, err
	}
	o := &hexkv.SessionOptions{
		ContextSize: cmd.Int("ctx-size"), BatchSize: cmd.Int("batch-size"), UBatchSize: cmd.Int("ubatch-size"),
		Threads: max(0, cmd.Int("threads")), KVOnHost: cmd.Bool("no-kv-offload"), Cache: cache,
	}
	if o.BatchSize < 1 || o.UBatchSize < 1 {
		return nil, usagef("-b %d -ub %d: use 1 or more", o.BatchSize, o.UBatchSize)
	}
	o.UBatchSize = min(o.UBatchSize, o.BatchSize) // as llama.cpp does
	return o, nil
}

// gpuLayers reads -ngl.
func gpuLayers(cmd *cli.Command) (int, error) {
	switch s := cmd.String("n-gpu-layers"); s {
	case "all", "auto", "":
		return -1, nil
	default:
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return 0, usagef("-ngl %s: use a number of layers, or all", s)
		}
		return int(n), nil
	}
}

// sampling reads [samplingFlags] without the length.
func sampling(e *env, cmd *cli.Command) (hexkv.Sampling, error) {
	o := hexkv.Sampling{
		Temperature: float32(cmd.Float("temp")), TopK: max(0, cmd.Int("top-k")), TopP: float32(cmd.Float("top-p")),
		MinP: float32(cmd.Float("min-p")), RepeatPenalty: float32(cmd.Float("repeat-penalty")), Seed: hexkv.RandomSeed,
		Grammar: cmd.String("grammar"),
	}
	if seed := cmd.Int64("seed"); seed != -1 {
		if seed < 0 || seed > math.MaxUint32 {
			return o, usagef("-s %d: use 0 to %d, or -1 for another seed each time", seed, uint32(math.MaxUint32))
		}
		o.Seed = uint32(seed)
	}
	if path := cmd.String("grammar-file"); path != "" {
		if o.Grammar != "" {
			return o, usagef("--grammar and --grammar-file contradict each other; give one of them")
		}
		var err error
		if o.Grammar, err = readText(e, path); err != nil {
			return o, err
		}
	}
	return o, o.Validate()
}

// maxTokens reads -n; 0 is no limit.
func maxTokens(cmd *cli.Command) (int, error) {
	switch n := cmd.Int("predict"); {
	case n == -1 || n == -2:
		return 0, nil
	case n < 1:
		return 0, usagef("-n %d: use 1 or more, or -1 for no limit", n)
	default:
		return n, nil
	}
}

// readText reads a file, or standard input for "-", without its last newline.
func readText(e *env, path string) (string, error) {
	var data []byte
	var err error
	if path == "-" {
		path = "standard input"
		data, err = io.ReadAll(e.stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return "", readError(path, err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if !utf8.ValidString(text) {
		return "", actionError{errors.New(path + " is not valid UTF-8; convert it to UTF-8")}
	}
	return text, nil
}

func readError(path string, err error) error {
	reason := "; check the path"
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = " does not exist; check the path"
	case errors.Is(err, fs.ErrPermission):
		reason = " cannot be read; check its permissions"
	case errors.As(err, &p):
		reason = " cannot be read (" + p.Err.Error() + "); name a readable text file"
	}
	return actionError{errors.New(path + reason)}
}
