package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

// settings is all that the flags of run say.
type settings struct {
	session  hexkv.SessionOptions
	sampling hexkv.Sampling
	tokens   int
	layers   int
	model    string
	prompt   string
	system   string
}

// parse reads the arguments of hexrun run.
func parse(t *testing.T, args ...string) (s settings, err error) {
	t.Helper()
	e := &env{stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, interrupts: newInterrupts(nil)}
	app := newApp(e)
	for _, c := range app.Commands {
		if c.Name != "run" {
			continue
		}
		c.Action = action(e, func(_ context.Context, cmd *cli.Command) error {
			o, err := sessionOptions(cmd)
			if err != nil {
				return err
			}
			s.session = *o
			if s.sampling, err = sampling(e, cmd); err != nil {
				return err
			}
			if s.tokens, err = maxTokens(cmd); err != nil {
				return err
			}
			if s.layers, err = gpuLayers(cmd); err != nil {
				return err
			}
			s.model, s.prompt, s.system = cmd.String("model"), cmd.String("prompt"), cmd.String("system-prompt")
			return nil
		})
	}
	e.args = args
	return s, app.Run(context.Background(), append([]string{"hexrun", "run"}, normalize(args, app.Commands)...))
}

func TestFlagsAsUsersTypeThem(t *testing.T) {
	s, err := parse(t, strings.Fields(`-m model.gguf -c 1024 -b 256 -ub 64 -t 3 -ngl 0 -n 7 -p -sys -s 42 --temp 0.5 --top-k 10
		--top-p 0.9 --min-p 0.1 --repeat-penalty 1.1 -sys be_brief -ctk hex3 -ctv hex2 --grammar --a_b`)...)
	require.NoError(t, err)
	assert.Equal(t, settings{
		session: hexkv.SessionOptions{ContextSize: 1024, BatchSize: 256, UBatchSize: 64, Threads: 3,
			Cache: hexkv.Config{TypeK: "hex3", TypeV: "hex2"}},
		sampling: hexkv.Sampling{Temperature: 0.5, TopK: 10, TopP: 0.9, MinP: 0.1, RepeatPenalty: 1.1, Seed: 42, Grammar: "--a_b"},
		tokens:   7, layers: 0, model: "model.gguf", prompt: "-sys", system: "be_brief",
	}, s)
}

func TestLongFlags(t *testing.T) {
	s, err := parse(t, strings.Fields(`--model=model.gguf --ctx_size 1024 --batch-size=32 --ubatch_size=512 --threads -1 --n-gpu-layers 99
		--predict -1 --prompt= --seed -1 --temperature 0 --system_prompt a_b --hex balanced --hex-refine q8_0 --hex-sink 2
		--hex_recent -1 --hex-heavy 0.1 --hex-backbone 0.05 --hex-backbone-kind strided --hex-seed 9 --hex-mean=0`)...)
	require.NoError(t, err)
	assert.Equal(t, settings{
		session: hexkv.SessionOptions{ContextSize: 1024, BatchSize: 32, UBatchSize: 32, Cache: hexkv.Config{
			Preset: "balanced", Refine: "q8_0", Sink: hexkv.Ptr(2), Recent: hexkv.Ptr(-1), Heavy: hexkv.Ptr(0.1),
			Backbone: hexkv.Ptr(0.05), BackboneKind: "strided", Seed: hexkv.Ptr(uint32(9)), Mean: hexkv.Ptr(0)}},
		sampling: hexkv.Sampling{TopK: 40, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1, Seed: hexkv.RandomSeed},
		layers:   99, model: "model.gguf", system: "a_b",
	}, s)
}

func TestVariables(t *testing.T) {
	for name, value := range map[string]string{
		"MODEL": "env.gguf", "CTX_SIZE": "512", "BATCH": "128", "UBATCH": "16", "THREADS": "5", "N_PREDICT": "3", "N_GPU_LAYERS": "all",
		"TOP_K": "7", "HEX": "tiny", "HEX_REFINE": "f16", "HEX_SINK": "1", "HEX_RECENT": "60", "HEX_HEAVY": "0.25", "HEX_BACKBONE": "0.5",
		"HEX_BACKBONE_KIND": "random", "HEX_SEED": "4", "HEX_MEAN": "8", "CACHE_TYPE_K": "hex4", "CACHE_TYPE_V": "hex3",
	} {
		t.Setenv("LLAMA_ARG_"+name, value)
	}
	s, err := parse(t, "--hex-sink", "3", "-c", "768")
	require.NoError(t, err)
	assert.Equal(t, "env.gguf", s.model)
	assert.Equal(t, hexkv.SessionOptions{ContextSize: 768, BatchSize: 128, UBatchSize: 16, Threads: 5, Cache: hexkv.Config{
		Preset: "tiny", TypeK: "hex4", TypeV: "hex3", Refine: "f16", Sink: hexkv.Ptr(3), Recent: hexkv.Ptr(60), Heavy: hexkv.Ptr(0.25),
		Backbone: hexkv.Ptr(0.5), BackboneKind: "random", Seed: hexkv.Ptr(uint32(4)), Mean: hexkv.Ptr(8)}}, s.session)
	assert.Equal(t, 3, s.tokens)
	assert.Equal(t, -1, s.layers)
	assert.Equal(t, 7, s.sampling.TopK)
}

func TestRefusedFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--nope", "unknown flag --nope"},
		{"-xyz 3", "unknown flag -xyz;"},
		{"--x_y", "unknown flag --x_y;"},
		{"-c 8k", "-c 8k: use a whole number of tokens, such as 8192;"},
		{"-t abc", "-t abc: use 1 to 512, or 0 for the physical cores;"},
		{"--temp warm", "--temp warm: use 0 to 100;"},
		{"--temp -1", "--temp -1 is out of range; use 0 to 100"},
		{"--hex-seed -1", "--hex-seed -1: use 0 to 4294967295;"},
		{"--hex -p hi", "--hex needs a preset: use one of off, tiny, "},
		{"-p hi --hex", "--hex needs a preset: use one of off, tiny, "},
		{"-fa off", "-fa off: use on or auto, or leave it out;"},
		{"--flash_attn 2", "--flash-attn 2: use on or auto"},
		{"-hf user/model", "-hf is no flag of hexrun run: hexrun downloads nothing; download the GGUF file and name it with -m"},
		{"--rpc 1.2.3.4:5", "--rpc is no flag of hexrun run: hexrun computes on this machine; use llama-server --rpc"},
		{"--mlock", "--mlock is no flag of hexrun run: "},
		{"-cnv", "-cnv is no flag of hexrun run: use hexrun chat"},
		{"-np 4", "-np is no flag of hexrun run: hexrun answers one at a time; use llama-server -np"},
		{"--presence-penalty 1", "--presence-penalty is no flag of hexrun run: use --temp, "},
		{"-p", "-p needs a value"},
		{"hello", `"hello" is not understood; give a prompt with -p, a file with -f, a model with -m (see hexrun run --help)`},
		{"Model.GGUF", `"Model.GGUF" is not understood; name the model with -m Model.GGUF (`},
		{"-b 0", "use 1 or more"},
		{"-ngl some", "-ngl some: use a number of layers, or all"},
		{"-n 0", "-n 0: use 1 or more, or -1"},
		{"-s 4294967296", "-s 4294967296: use 0 to 4294967295"},
		{"--top-p 2", "--top-p 2 is out of range; use 0 to 1"},
		{"--grammar a --grammar-file b", "contradict"},
		{"--hex gigantic", "'gigantic' is unknown; use one of off"},
		{"--hex balanced -ctv q4_0", "q4_0"},
		{"--hex-heavy 0.1", "--hex-heavy is set but HEX is off; choose a preset such as --hex balanced, or leave --hex-heavy out"},
		{"--hex off --hex-sink 3", "--hex-sink is set but HEX is off"},
	} {
		_, err := parse(t, strings.Fields(c.args)...)
		require.ErrorContains(t, err, c.want, c.args)
		assert.Equal(t, exitUsage, exitCode(err), c.args)
		assert.NotContains(t, err.Error(), "\n")
	}
}

// A reply that cannot be written is no success.
func TestOutputFails(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	for _, args := range []string{"version", "--help", "run --help"} {
		var errs bytes.Buffer
		e := &env{stdin: strings.NewReader(""), stdout: full, stderr: &errs, interrupts: newInterrupts(nil)}
		assert.Equal(t, exitError, run(context.Background(), e, strings.Fields(args)), args)
		assert.Contains(t, errs.String(), "no space left on device); free some space, or write it elsewhere", args)
	}
}

// Other commands advise the flags that they have.
func TestRefusedByOtherCommands(t *testing.T) {
	for args, want := range map[string]string{
		"chat model.gguf":    `"model.gguf" is not understood; name the model with -m model.gguf (see hexrun chat --help)`,
		"info nonsense":      `"nonsense" is not understood; give a model with -m (see hexrun info --help)`,
		"compare text":       `"text" is not understood; give a file with -f, a model with -m (see hexrun compare --help)`,
		"version 2":          `"2" is not understood; see hexrun version --help`,
		"chat -no-cnv":       "-no-cnv is no flag of hexrun chat: use hexrun run --raw to continue a text",
		"info -fa on":        "-fa is no flag of hexrun info: this command does not compute; leave it out",
		"compare --hex tiny": "--hex is no flag of hexrun compare: caches to measure are named in a list, as in --caches f16,q8_0/q4_0,hex:tiny; hexrun info plans all presets",
		"chat -f a.txt":      "-f is no flag of hexrun chat: to give a file to the model, use hexrun run -f FILE, or /read FILE in hexrun chat",
		"version -t abc":     "unknown flag -t; see hexrun version --help",
	} {
		var out bytes.Buffer
		e := &env{stdin: strings.NewReader(""), stdout: &out, stderr: &out, interrupts: newInterrupts(nil)}
		assert.Equal(t, exitUsage, run(context.Background(), e, strings.Fields(args)), args)
		assert.Equal(t, "hexrun: "+want+"\n", out.String())
	}
}

// Flags that llama.cpp's users type, and that mean here what they mean there.
func TestFlagsOfLlama(t *testing.T) {
	for _, args := range []string{"-fa on", "-fa auto", "--flash-attn=1", "--no-mmap", "--no_mmap", "-e", "--escape", "-no-cnv", "--raw"} {
		_, err := parse(t, strings.Fields(args)...)
		assert.NoError(t, err, args)
	}
	t.Setenv("LLAMA_ARG_FLASH_ATTN", "off")
	_, err := parse(t)
	assert.ErrorContains(t, commandLine(newApp(&env{}), nil, err), "LLAMA_ARG_FLASH_ATTN=off is not understood: use on or auto")
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		``: "", `a\nb\tc\r`: "a\nb\tc\r", `\\n`: `\n`, `\'\"`: `'"`, `\x41\x0aB`: "A\nB", `\xg1 \x4`: `\xg1 \x4`, `\d \`: `\d \`, "é\\né": "é\né",
	} {
		assert.Equal(t, want, unescape(in), in)
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	e := &env{stdin: strings.NewReader(""), stdout: &out, stderr: &out, interrupts: newInterrupts(nil)}
	assert.Equal(t, exitOK, run(context.Background(), e, []string{"--help"}))
	assert.Contains(t, out.String(), "130  interrupted")
	assert.NotContains(t, out.String(), measureName)
	out.Reset()
	assert.Equal(t, exitOK, run(context.Background(), e, []string{"run", "--help"}))
	for _, want := range []string{"-ctk, --cache-type-k TYPE", "-ngl, --n-gpu-layers, --gpu-layers N", "[$LLAMA_ARG_HEX_BACKBONE_KIND]", "-c, --ctx-size N", "without it the stock f16 cache", "-e, --escape"} {
		assert.Contains(t, out.String(), want)
	}
	out.Reset()
	assert.Equal(t, exitUsage, run(context.Background(), e, []string{"dance"}))
	assert.Equal(t, "hexrun: \"dance\" is no command; use chat, run, compare, bench, eval, info or version\n", out.String())
	out.Reset()
	t.Setenv("LLAMA_ARG_CTX_SIZE", "many")
	assert.Equal(t, exitUsage, run(context.Background(), e, []string{"run", "-p", "x"}))
	assert.Equal(t, "hexrun: the environment variable LLAMA_ARG_CTX_SIZE=many is not a valid int; correct or unset it\n", out.String())
}

func TestNormalize(t *testing.T) {
	commands := []*cli.Command{{Flags: append(contextFlags(1), systemFlag(), &cli.BoolFlag{Name: "raw-text"}),
		Commands: []*cli.Command{{Flags: []cli.Flag{texts("", "file f", "", "")}}}}}
	for in, want := range map[string]string{
		"run --ctx_size 5 --raw_text x_y":  "run --ctx-size 5 --raw-text x_y",
		"-sys --ctx_size --ctx_size=--a_b": "-sys --ctx_size --ctx-size=--a_b",
		"--unknown_flag -- --ctx_size":     "--unknown-flag -- --ctx_size",
		"- -c":                             "- -c",
		"eval kld -f --a_b --ctx_size":     "eval kld -f --a_b --ctx-size",
	} {
		assert.Equal(t, want, strings.Join(normalize(strings.Fields(in), commands), " "))
	}
}
