package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/human"
	"github.com/hexkv/hexkv/cmd/hexrun/internal/report"
	"github.com/hexkv/hexkv/hexkv"
)

func infoCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "info",
		Usage: "describe a model, and what its cache takes per context length",
		Flags: append(modelFlags(),
			whole(aboutModel, "ctx-size c", "", "N|plan this context only, and probe with it", 0, "512 to 32768"),
			&cli.BoolFlag{Name: "probe", Category: aboutCache, Usage: "measure the presets on this model, in a minute at most once it is loaded, and recommend one for a context of -c (1024)"},
			threadsFlag(),
			formatFlag("md", "json")),
		Action: action(e, func(ctx context.Context, cmd *cli.Command) error { return info(ctx, e, cmd) }),
	}
}

// plan is the cache of one context length.
type plan struct {
	NCtx   int         `json:"n_ctx"`
	Caches []planEntry `json:"caches"`
}

// planEntry is what one cache takes.
type planEntry struct {
	Cache          string  `json:"cache"`
	KVBytes        uint64  `json:"kv_bytes"`
	BitsPerElement float64 `json:"bits_per_element"`
}

// modelFacts are the facts of a model that matter here.
type modelFacts struct {
	Path            string `json:"path"`
	Name            string `json:"name"`
	Architecture    string `json:"architecture"`
	Description     string `json:"description"`
	Parameters      uint64 `json:"parameters"`
	Bytes           uint64 `json:"bytes"`
	Layers          int    `json:"layers"`
	Heads           int    `json:"heads"`
	KVHeads         int    `json:"kv_heads"`
	HeadSizeK       int    `json:"head_size_k"`
	HeadSizeV       int    `json:"head_size_v"`
	Embedding       int    `json:"embedding"`
	TrainedContext  int    `json:"trained_context"`
	Vocab           int    `json:"vocab"`
	SlidingWindow   int    `json:"sliding_window"`
	HasChatTemplate bool   `json:"chat_template"`
	Recurrent       bool   `json:"recurrent"`
	HEX             bool   `json:"hex"`
	HEXReason       string `json:"hex_reason,omitempty"`
}

// info prints facts and plans; without --probe nothing is allocated but the model.
func info(ctx context.Context, e *env, cmd *cli.Command) error {
	lengths := []int{512, 2048, 4096, 8192, 32768}
	if cmd.IsSet("ctx-size") {
		if cmd.Int("ctx-size") < 1 {
			return usagef("-c %d: use 1 or more tokens", cmd.Int("ctx-size"))
		}
		lengths = []int{cmd.Int("ctx-size")}
	}
	m, err := openModel(ctx, e, cmd)
	if err != nil {
		return err
	}
	defer m.Close()
	i := m.Info()
	facts := modelFacts(i)
	plans := make([]plan, len(lengths))
	for n, length := range lengths {
		if plans[n], err = makePlan(ctx, m, length); err != nil {
			return err
		}
	}
	var found *probed
	if cmd.Bool("probe") {
		p, err := probe(ctx, e, m, cmd.Int("ctx-size"), max(0, cmd.Int("threads")), probeTime)
		if err != nil {
			return err
		}
		found = &p
	}
	if cmd.String("output") == "json" {
		out := json.NewEncoder(e.stdout)
		out.SetIndent("", "  ")
		return out.Encode(struct {
			Model modelFacts `json:"model"`
			Plan  []plan     `json:"plan"`
			Probe *probed    `json:"probe,omitempty"`
		}{facts, plans, found})
	}
	writeFacts(e.stdout, facts)
	if err := writePlans(e.stdout, facts, plans); err != nil || found == nil {
		return err
	}
	return found.write(e.stdout)
}

// makePlan lays out the stock caches and all presets that the model can use.
func makePlan(ctx context.Context, m *hexkv.Model, length int) (plan, error) {
	specs := []string{"f16", "q8_0", "q4_0"}
	if m.Info().HEX {
		for _, preset := range hexkv.Presets()[1:] { // without off
			specs = append(specs, "hex:"+preset)
		}
	}
	p := plan{NCtx: length}
	for _, spec := range specs {
		if err := ctx.Err(); err != nil {
			return p, err
		}
		c, err := hexkv.ParseConfig(spec)
		if err != nil {
			return p, err
		}
		est, err := m.Estimate(&hexkv.SessionOptions{ContextSize: length, Cache: c})
		if err != nil {
			return p, err
		}
		p.NCtx = est.ContextSize
		p.Caches = append(p.Caches, planEntry{spec, est.KV, est.BitsPerElement})
	}
	return p, nil
}

func writeFacts(w io.Writer, f modelFacts) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	line("file", "%s", f.Path)
	if f.Name != "" {
		line("name", "%s", f.Name)
	}
	line("model", "%s, %s parameters, %s", f.Description, human.Count(f.Parameters), human.Bytes(f.Bytes))
	line("layers", "%d, width %d, vocabulary %s", f.Layers, f.Embedding, human.Count(f.Vocab))
	head := fmt.Sprint(f.HeadSizeK)
	if f.HeadSizeV != f.HeadSizeK {
		head = fmt.Sprintf("%d for K, %d for V", f.HeadSizeK, f.HeadSizeV)
	}
	line("attention", "%d query heads, %d KV heads, head size %s", f.Heads, f.KVHeads, head)
	window := ""
	if f.SlidingWindow > 0 {
		window = fmt.Sprintf(", sliding window %s", human.Count(f.SlidingWindow))
	}
	line("context", "%s tokens as trained%s", human.Count(f.TrainedContext), window)
	template := "yes"
	if !f.HasChatTemplate {
		template = "none; use hexrun run --raw"
	}
	line("chat", "%s", template)
	if f.HEX {
		line("HEX cache", "yes")
	} else {
		line("HEX cache", "no: %s", f.HEXReason)
	}
}

func writePlans(w io.Writer, f modelFacts, plans []plan) error {
	fmt.Fprint(w, "\nBytes of the KV cache, and bits per element, by context length:\n\n")
	t := report.Table{Head: []string{"cache"}}
	for _, p := range plans {
		head := human.Count(p.NCtx)
		if p.NCtx > f.TrainedContext {
			head += "*"
		}
		t.Head = append(t.Head, head)
	}
	for i, c := range plans[0].Caches {
		row := []string{c.Cache}
		for _, p := range plans {
			row = append(row, fmt.Sprintf("%s (%.2f)", human.Bytes(p.Caches[i].KVBytes), p.Caches[i].BitsPerElement))
		}
		t.Rows = append(t.Rows, row)
	}
	if err := t.Write(w); err != nil {
		return err
	}
	if plans[len(plans)-1].NCtx > f.TrainedContext {
		fmt.Fprintln(w, "\n* longer than the model was trained with")
	}
	return nil
}
