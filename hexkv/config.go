package hexkv

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
	HalfLife     *int     // of heavy-hitter scores, in queries
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

// ParseConfig reads a cache specification, the form that the command line uses:
//
//	f16                         a ggml type for K and V
//	q8_0/q4_0                   K and V
//	hex:balanced                a preset; hex:off is f16
//	hex:balanced:heavy=0.1      with overrides, by the names of hexkv_cache: type_k, type_v, refine, backbone_kind,
//	                            sink, recent, heavy, backbone, seed, mean, half_life
//
// It validates the result. Fails with [ErrInvalidConfig]. Calls hexkv_cache_parse.
func ParseConfig(spec string) (Config, error) { panic("unimplemented") }

// String returns the specification that [ParseConfig] reads. Calls hexkv_cache_format.
func (c Config) String() string { panic("unimplemented") }

// Validate fails with [ErrInvalidConfig] and a sentence that names the setting, its value and the allowed range.
// Calls hexkv_cache_check.
func (c Config) Validate() error { panic("unimplemented") }

// IsHEX reports whether c is a HEX cache rather than a stock one.
func (c Config) IsHEX() bool { return c.Preset != "" && c.Preset != "off" }

// Presets returns the names that Preset takes, "off" first. Calls hexkv_preset_name.
func Presets() []string { panic("unimplemented") }

// Ptr returns a pointer to v, for the optional fields of [Config].
func Ptr[T any](v T) *T { return &v }
