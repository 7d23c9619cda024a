package main

import (
	"fmt"
	"strconv"
	"strings"
)

// experiment is one table: a run of hexrun eval with a grid of caches.
type experiment struct {
	name  string
	eval  string   // kld, recall or greedy
	model string   // "f32", "q4_1" or "gemma"
	args  []string // of hexrun eval
	grid  []string // lines of the grid file
}

// The windows are those that DESIGN's trial did not tune on, and neither did the search for the presets, but for the first.
var experiments = []experiment{
	{"presets", "kld", "f32", window(2048, 20000, 2), everyPreset("q8_0", "q5_0", "q4_0")},
	{"presets-4096", "kld", "f32", window(4096, 80000, 1), everyPreset("q8_0", "q5_0", "q4_0")},
	{"presets-8192", "kld", "f32", window(8192, 160000, 1), everyPreset("q8_0", "q5_0", "q4_0")},
	{"presets-default", "kld", "q4_1", window(2048, 20000, 1), everyPreset("q8_0", "q4_0")},
	{"presets-gemma", "kld", "gemma", window(2048, 20000, 1), []string{"q8_0", "q4_0", "hex:tiny", "hex:compact", "hex:balanced", "hex:quality"}},
	{"ingredients", "kld", "f32", window(2048, 20000, 1), ingredients},
	{"base", "kld", "f32", window(2048, 20000, 1), bases()},
	{"residual", "kld", "f32", window(2048, 20000, 1), residuals},
	{"corrections", "kld", "f32", window(2048, 20000, 1), corrections()},
	{"selection", "kld", "f32", window(2048, 20000, 1), selection},
	{"degree", "kld", "f32", window(2048, 20000, 1), degrees},
	{"needle", "recall", "q4_1", []string{"--kind", "needle", "--length", "2048", "--items", "12"}, recalled},
	{"multikey", "recall", "q4_1", []string{"--kind", "multikey", "--length", "2048", "--items", "12"}, recalled},
	{"greedy", "greedy", "q4_1", []string{"--prompts", "50", "--predict", "2000"}, []string{"q8_0", "q4_0", "hex:tiny", "hex:compact", "hex:balanced", "hex:quality"}},
}

func window(size, start, count int) []string {
	return []string{"-c", strconv.Itoa(size), "--start", strconv.Itoa(start), "--windows", strconv.Itoa(count), "--lockstep", "8"}
}

func everyPreset(stock ...string) []string {
	return append(stock, "hex:tiny", "hex:compact", "hex:balanced", "hex:quality", "hex:paper")
}

// ingredients: 304 slots of the 2,048 cells however they are chosen, so all rows but the first two have the bytes of tiny.
var ingredients = []string{
	"no refinement = hex:tiny:refine=none",
	"no refinement, K 4 V 1 = hex:tiny:type_k=hex4:refine=none",
	"sinks and recent = hex:tiny:heavy=0:recent=300",
	"heavy hitters, 32 recent = hex:tiny:recent=28:heavy=0.1329",
	"sinks, recent, heavy = hex:tiny",
	"sinks, recent, heavy, expander = hex:tiny:backbone=0.0333:heavy=0.0523",
	"sinks, recent, heavy, random = hex:tiny:backbone=0.0333:heavy=0.0523:backbone_kind=random",
	"sinks, recent, heavy, strided = hex:tiny:backbone=0.0333:heavy=0.0523:backbone_kind=strided",
	"sinks, recent, heavy, log-spaced = hex:tiny:backbone=0.0333:heavy=0.0523:backbone_kind=log",
	"sinks, recent, expander = hex:tiny:backbone=0.0666:heavy=0:recent=162",
	"sinks, recent, random = hex:tiny:backbone=0.0666:heavy=0:recent=162:backbone_kind=random",
	"sinks, recent, strided = hex:tiny:backbone=0.0666:heavy=0:recent=162:backbone_kind=strided",
	"expander only = hex:tiny:backbone=0.1666:heavy=0:recent=0:sink=0",
	"random only = hex:tiny:backbone=0.1666:heavy=0:recent=0:sink=0:backbone_kind=random",
	"token by channel mask (paper's) = hex:tiny:refine=f16:backbone_kind=channels:backbone=0.0312:heavy=0:recent=0:sink=4",
}

func bases() []string {
	var all []string
	for k := 1; k <= 4; k++ {
		for v := 1; v <= 4; v++ {
			all = append(all, fmt.Sprintf("K %d V %d = hex:compact:type_k=hex%d:type_v=hex%d", k, v, k, v))
		}
	}
	return all
}

// residuals: the bytes of compact, in slots of different sizes.
var residuals = []string{
	"hex1, 559 slots = hex:compact:refine=hex1:heavy=0.2295",
	"hex2, 437 slots = hex:compact:refine=hex2:heavy=0.151",
	"hex3, 304 slots = hex:compact",
	"hex4, 232 slots = hex:compact:refine=hex4:heavy=0.0508",
	"q8_0, 128 slots = hex:compact:refine=q8_0:heavy=0.0063:recent=100",
	"f16, 62 slots = hex:compact:refine=f16:heavy=0.0137:recent=30",
}

// corrections: what costs no byte.
func corrections() []string {
	var all []string
	for _, preset := range []string{"tiny", "compact", "balanced", "quality"} {
		for _, c := range []struct{ label, setting string }{
			{"both", ""}, {"biases left in", ":unbias=0"}, {"half of the biases taken off", ":unbias=0.5"}, {"K not centred", ":mean=0"},
		} {
			all = append(all, fmt.Sprintf("%s, %s = hex:%s%s", preset, c.label, preset, c.setting))
		}
	}
	return all
}

var selection = []string{
	"half-life 32 queries = hex:compact:half_life=32",
	"half-life 256 = hex:compact",
	"half-life 2048 = hex:compact:half_life=2048",
	"half-life a million = hex:compact:half_life=1000000",
	"32 recent, 272 heavy = hex:compact:recent=28:heavy=0.1329",
	"64 recent, 240 heavy = hex:compact:recent=60:heavy=0.1173",
	"192 recent, 112 heavy = hex:compact:recent=188:heavy=0.0548",
	"240 recent, 64 heavy = hex:compact:recent=236:heavy=0.0314",
	"no sinks = hex:compact:sink=0:recent=128",
	"16 sinks = hex:compact:sink=16:recent=112",
	"mean of 64 rows = hex:compact:mean=64",
	"mean of 1024 rows = hex:compact:mean=1024",
}

// degrees: the backbone from poor to dense; heavy hitters make room, so the bytes are those of compact.
var degrees = []string{
	"none = hex:compact",
	"degree 1 = hex:compact:backbone=0.0111:heavy=0.0748",
	"degree 2 = hex:compact:backbone=0.0222:heavy=0.0635",
	"degree 3 = hex:compact:backbone=0.0333:heavy=0.0523",
	"degree 6 = hex:compact:backbone=0.0666:heavy=0.0191",
	"degree 6, strided (factor 2.06) = hex:compact:backbone=0.0666:heavy=0.0191:backbone_kind=strided",
	"degree 6, random = hex:compact:backbone=0.0666:heavy=0.0191:backbone_kind=random",
}

var recalled = []string{
	"q4_0", "hex:tiny", "hex:balanced",
	"tiny, expander for half of the heavy = hex:tiny:backbone=0.0333:heavy=0.0523",
	"tiny, recent only = hex:tiny:heavy=0:recent=300",
	"K 2 V 2 = hex:tiny:type_k=hex2:type_v=hex2",
}

// command is what a reader would type.
func (x experiment) command() string {
	return "hexrun eval " + x.eval + " " + strings.Join(x.args, " ") + " --grid " + x.name + ".grid"
}
