package hexkv

import (
	"math"
	"strconv"
	"strings"

	"github.com/hexkv/hexkv/binding"
)

// Config says how a session stores its KV cache. The zero value is stock f16. Empty strings and nil pointers mean the
// value of the preset.
//
// A config is one of: a stock cache (TypeK and TypeV, no Preset), or a HEX cache (a Preset, and single settings that
// override it; TypeK and TypeV may then be "hex1" to "hex4" only).
type Config struct {
	Preset       string   // "" or "off": stock; or one of [Presets]
	TypeK        string   // "f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "hex1" to "hex4"
	TypeV        string   // as TypeK
	Refine       string   // codec of refined entries: "none", "hex1" to "hex4", "q8_0", "f16"
	Sink         *int     // first tokens that are always refined, 0 or more
	Recent       *int     // last tokens that are always refined, 0 or more; -1 = from the context length
	Heavy        *float64 // share of the context that heavy hitters hold, 0 to 1
	Backbone     *float64 // share of the context that the backbone holds, 0 to 1
	BackboneKind string   // "none", "expander", "random", "strided", "log", "channels"
	Seed         *uint32  // of the backbone
	Mean         *int     // first rows whose mean centres K, 0 = no centring
	HalfLife     *int     // of heavy-hitter scores, in queries, 1 or more
	Unbias       *float64 // share of the biases of coding noise, on logits and on V, that is taken off, 0 to 1
}

// Ready-made configs.
var (
	CacheF16      = Config{TypeK: "f16", TypeV: "f16"}
	CacheQ8_0     = Config{TypeK: "q8_0", TypeV: "q8_0"}
	CacheQ4_0     = Config{TypeK: "q4_0", TypeV: "q4_0"}
	CacheQuality  = Config{Preset: "quality"}
	CacheBalanced = Config{Preset: "balanced"}
	CacheCompact  = Config{Preset: "compact"}
	CacheTiny     = Config{Preset: "tiny"}
	CachePaper    = Config{Preset: "paper"}
)

// Ptr returns a pointer to v, for the optional fields of [Config].
func Ptr[T any](v T) *T { return &v }

// ParseConfig reads a cache specification, the form that the command line uses:
//
//	f16                         a ggml type for K and V
//	q8_0/q4_0                   K and V
//	hex:balanced                a preset; hex:off is f16
//	hex:balanced:heavy=0.1      with overrides, by the names of hexkv_cache: type_k, type_v, refine, backbone_kind,
//	                            sink, recent, heavy, backbone, seed, mean, half_life, unbias
//
// It validates the result. Fails with [ErrInvalidConfig]. Calls hexkv_cache_parse.
func ParseConfig(spec string) (Config, error) {
	const op = "ParseConfig"
	if strings.ContainsRune(spec, 0) {
		return Config{}, errorf(op, CodeConfig, "cache specification %q has a NUL byte; write for example hex:balanced", spec)
	}
	b, s := binding.ParseCache(spec)
	if err := statusError(op, s); err != nil {
		return Config{}, err
	}
	return configOf(b), nil
}

// String returns the specification that [ParseConfig] reads. Calls hexkv_cache_format.
func (c Config) String() string {
	b, err := c.binding()
	if err != nil {
		return "invalid: " + err.Error()
	}
	spec, s := binding.FormatCache(&b)
	if !s.OK() {
		return "invalid: " + c.Preset
	}
	return spec
}

// Validate fails with [ErrInvalidConfig] and a sentence that names the setting, its value and the allowed range.
// Calls hexkv_cache_check.
func (c Config) Validate() error {
	b, err := c.binding()
	if err != nil {
		return err
	}
	return statusError("Config.Validate", binding.CheckCache(&b))
}

// IsHEX reports whether c is a HEX cache rather than a stock one.
func (c Config) IsHEX() bool { return c.Preset != "" && c.Preset != "off" }

// Presets returns the names that Preset takes, "off" first. Calls hexkv_preset_name.
func Presets() []string {
	var all []string
	for i := 0; ; i++ {
		name := binding.PresetName(i)
		if name == "" {
			return all
		}
		all = append(all, name)
	}
}

// binding converts c. The sentinels of the C side are not values here.
func (c Config) binding() (binding.Cache, error) {
	b := binding.Cache{
		Preset: c.Preset, TypeK: c.TypeK, TypeV: c.TypeV, Refine: c.Refine, BackboneKind: c.BackboneKind,
		Sink: binding.Unset, Recent: binding.UnsetRecent, Heavy: binding.Unset, Backbone: binding.Unset,
		Seed: binding.Unset, Mean: binding.Unset, HalfLife: binding.Unset, Unbias: binding.Unset,
	}
	for _, f := range []struct {
		name string
		from *int
		to   *int32
		low  int
	}{
		{"Sink", c.Sink, &b.Sink, 0}, {"Recent", c.Recent, &b.Recent, -1}, {"Mean", c.Mean, &b.Mean, 0},
		{"HalfLife", c.HalfLife, &b.HalfLife, 1},
	} {
		if f.from == nil {
			continue
		}
		if *f.from < f.low || *f.from > math.MaxInt32 {
			return b, errorf("Config.Validate", CodeConfig, "%s = %d is out of range; use %d or more", f.name, *f.from, f.low)
		}
		*f.to = int32(*f.from)
	}
	for _, f := range []struct {
		name string
		from *float64
		to   *float32
		of   string
	}{{"Heavy", c.Heavy, &b.Heavy, " of the context"}, {"Backbone", c.Backbone, &b.Backbone, " of the context"}, {"Unbias", c.Unbias, &b.Unbias, ""}} {
		if f.from == nil {
			continue
		}
		if !(*f.from >= 0 && *f.from <= 1) {
			return b, errorf("Config.Validate", CodeConfig, "%s = %g is out of range; use a share%s, 0 to 1", f.name, *f.from, f.of)
		}
		*f.to = float32(*f.from)
	}
	if c.Seed != nil {
		b.Seed = int64(*c.Seed)
	}
	return b, nil
}

// configOf converts back.
func configOf(b binding.Cache) Config {
	c := Config{Preset: b.Preset, TypeK: b.TypeK, TypeV: b.TypeV, Refine: b.Refine, BackboneKind: b.BackboneKind}
	whole := func(v, unset int32) *int {
		if v == unset {
			return nil
		}
		return Ptr(int(v))
	}
	c.Sink, c.Recent = whole(b.Sink, binding.Unset), whole(b.Recent, binding.UnsetRecent)
	c.Mean, c.HalfLife = whole(b.Mean, binding.Unset), whole(b.HalfLife, binding.Unset)
	share := func(v float32) *float64 {
		if v == binding.Unset {
			return nil
		}
		// 0.1, not 0.10000000149
		x, _ := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		return &x
	}
	c.Heavy, c.Backbone, c.Unbias = share(b.Heavy), share(b.Backbone), share(b.Unbias)
	if b.Seed != binding.Unset {
		c.Seed = Ptr(uint32(b.Seed))
	}
	return c
}
