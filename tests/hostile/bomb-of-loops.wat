;; A function in which two hundred nested loops carry five hundred numbers: the compiler must keep a hundred thousand
;; values apart.
;;! compile.cpu_seconds = 1
;;! refused = "compile_too_expensive"
;;! says = "1 s of processor time"
(module
  (memory (export "memory") 1)
  (func (export "bomb") (param i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (loop $l0 (loop $l1 (loop $l2 (loop $l3 (loop $l4 (loop $l5 (loop $l6 (loop $l7 (loop $l8 (loop $l9
    (loop $l10 (loop $l11 (loop $l12 (loop $l13 (loop $l14 (loop $l15 (loop $l16 (loop $l17 (loop $l18 (loop $l19
    (loop $l20 (loop $l21 (loop $l22 (loop $l23 (loop $l24 (loop $l25 (loop $l26 (loop $l27 (loop $l28 (loop $l29
    (loop $l30 (loop $l31 (loop $l32 (loop $l33 (loop $l34 (loop $l35 (loop $l36 (loop $l37 (loop $l38 (loop $l39
    (loop $l40 (loop $l41 (loop $l42 (loop $l43 (loop $l44 (loop $l45 (loop $l46 (loop $l47 (loop $l48 (loop $l49
    (loop $l50 (loop $l51 (loop $l52 (loop $l53 (loop $l54 (loop $l55 (loop $l56 (loop $l57 (loop $l58 (loop $l59
    (loop $l60 (loop $l61 (loop $l62 (loop $l63 (loop $l64 (loop $l65 (loop $l66 (loop $l67 (loop $l68 (loop $l69
    (loop $l70 (loop $l71 (loop $l72 (loop $l73 (loop $l74 (loop $l75 (loop $l76 (loop $l77 (loop $l78 (loop $l79
    (loop $l80 (loop $l81 (loop $l82 (loop $l83 (loop $l84 (loop $l85 (loop $l86 (loop $l87 (loop $l88 (loop $l89
    (loop $l90 (loop $l91 (loop $l92 (loop $l93 (loop $l94 (loop $l95 (loop $l96 (loop $l97 (loop $l98 (loop $l99
    (loop $l100 (loop $l101 (loop $l102 (loop $l103 (loop $l104 (loop $l105 (loop $l106 (loop $l107 (loop $l108 (loop $l109
    (loop $l110 (loop $l111 (loop $l112 (loop $l113 (loop $l114 (loop $l115 (loop $l116 (loop $l117 (loop $l118 (loop $l119
    (loop $l120 (loop $l121 (loop $l122 (loop $l123 (loop $l124 (loop $l125 (loop $l126 (loop $l127 (loop $l128 (loop $l129
    (loop $l130 (loop $l131 (loop $l132 (loop $l133 (loop $l134 (loop $l135 (loop $l136 (loop $l137 (loop $l138 (loop $l139
    (loop $l140 (loop $l141 (loop $l142 (loop $l143 (loop $l144 (loop $l145 (loop $l146 (loop $l147 (loop $l148 (loop $l149
    (loop $l150 (loop $l151 (loop $l152 (loop $l153 (loop $l154 (loop $l155 (loop $l156 (loop $l157 (loop $l158 (loop $l159
    (loop $l160 (loop $l161 (loop $l162 (loop $l163 (loop $l164 (loop $l165 (loop $l166 (loop $l167 (loop $l168 (loop $l169
    (loop $l170 (loop $l171 (loop $l172 (loop $l173 (loop $l174 (loop $l175 (loop $l176 (loop $l177 (loop $l178 (loop $l179
    (loop $l180 (loop $l181 (loop $l182 (loop $l183 (loop $l184 (loop $l185 (loop $l186 (loop $l187 (loop $l188 (loop $l189
    (loop $l190 (loop $l191 (loop $l192 (loop $l193 (loop $l194 (loop $l195 (loop $l196 (loop $l197 (loop $l198 (loop $l199
    local.get 0
    local.get 1 i32.add local.tee 1 local.get 2 i32.add local.tee 2 local.get 3 i32.add local.tee 3 local.get 4 i32.add local.tee 4 local.get 5 i32.add local.tee 5
    local.get 6 i32.add local.tee 6 local.get 7 i32.add local.tee 7 local.get 8 i32.add local.tee 8 local.get 9 i32.add local.tee 9 local.get 10 i32.add local.tee 10
    local.get 11 i32.add local.tee 11 local.get 12 i32.add local.tee 12 local.get 13 i32.add local.tee 13 local.get 14 i32.add local.tee 14 local.get 15 i32.add local.tee 15
    local.get 16 i32.add local.tee 16 local.get 17 i32.add local.tee 17 local.get 18 i32.add local.tee 18 local.get 19 i32.add local.tee 19 local.get 20 i32.add local.tee 20
    local.get 21 i32.add local.tee 21 local.get 22 i32.add local.tee 22 local.get 23 i32.add local.tee 23 local.get 24 i32.add local.tee 24 local.get 25 i32.add local.tee 25
    local.get 26 i32.add local.tee 26 local.get 27 i32.add local.tee 27 local.get 28 i32.add local.tee 28 local.get 29 i32.add local.tee 29 local.get 30 i32.add local.tee 30
    local.get 31 i32.add local.tee 31 local.get 32 i32.add local.tee 32 local.get 33 i32.add local.tee 33 local.get 34 i32.add local.tee 34 local.get 35 i32.add local.tee 35
    local.get 36 i32.add local.tee 36 local.get 37 i32.add local.tee 37 local.get 38 i32.add local.tee 38 local.get 39 i32.add local.tee 39 local.get 40 i32.add local.tee 40
    local.get 41 i32.add local.tee 41 local.get 42 i32.add local.tee 42 local.get 43 i32.add local.tee 43 local.get 44 i32.add local.tee 44 local.get 45 i32.add local.tee 45
    local.get 46 i32.add local.tee 46 local.get 47 i32.add local.tee 47 local.get 48 i32.add local.tee 48 local.get 49 i32.add local.tee 49 local.get 50 i32.add local.tee 50
    local.get 51 i32.add local.tee 51 local.get 52 i32.add local.tee 52 local.get 53 i32.add local.tee 53 local.get 54 i32.add local.tee 54 local.get 55 i32.add local.tee 55
    local.get 56 i32.add local.tee 56 local.get 57 i32.add local.tee 57 local.get 58 i32.add local.tee 58 local.get 59 i32.add local.tee 59 local.get 60 i32.add local.tee 60
    local.get 61 i32.add local.tee 61 local.get 62 i32.add local.tee 62 local.get 63 i32.add local.tee 63 local.get 64 i32.add local.tee 64 local.get 65 i32.add local.tee 65
    local.get 66 i32.add local.tee 66 local.get 67 i32.add local.tee 67 local.get 68 i32.add local.tee 68 local.get 69 i32.add local.tee 69 local.get 70 i32.add local.tee 70
    local.get 71 i32.add local.tee 71 local.get 72 i32.add local.tee 72 local.get 73 i32.add local.tee 73 local.get 74 i32.add local.tee 74 local.get 75 i32.add local.tee 75
    local.get 76 i32.add local.tee 76 local.get 77 i32.add local.tee 77 local.get 78 i32.add local.tee 78 local.get 79 i32.add local.tee 79 local.get 80 i32.add local.tee 80
    local.get 81 i32.add local.tee 81 local.get 82 i32.add local.tee 82 local.get 83 i32.add local.tee 83 local.get 84 i32.add local.tee 84 local.get 85 i32.add local.tee 85
    local.get 86 i32.add local.tee 86 local.get 87 i32.add local.tee 87 local.get 88 i32.add local.tee 88 local.get 89 i32.add local.tee 89 local.get 90 i32.add local.tee 90
    local.get 91 i32.add local.tee 91 local.get 92 i32.add local.tee 92 local.get 93 i32.add local.tee 93 local.get 94 i32.add local.tee 94 local.get 95 i32.add local.tee 95
    local.get 96 i32.add local.tee 96 local.get 97 i32.add local.tee 97 local.get 98 i32.add local.tee 98 local.get 99 i32.add local.tee 99 local.get 100 i32.add local.tee 100
    local.get 101 i32.add local.tee 101 local.get 102 i32.add local.tee 102 local.get 103 i32.add local.tee 103 local.get 104 i32.add local.tee 104 local.get 105 i32.add local.tee 105
    local.get 106 i32.add local.tee 106 local.get 107 i32.add local.tee 107 local.get 108 i32.add local.tee 108 local.get 109 i32.add local.tee 109 local.get 110 i32.add local.tee 110
    local.get 111 i32.add local.tee 111 local.get 112 i32.add local.tee 112 local.get 113 i32.add local.tee 113 local.get 114 i32.add local.tee 114 local.get 115 i32.add local.tee 115
    local.get 116 i32.add local.tee 116 local.get 117 i32.add local.tee 117 local.get 118 i32.add local.tee 118 local.get 119 i32.add local.tee 119 local.get 120 i32.add local.tee 120
    local.get 121 i32.add local.tee 121 local.get 122 i32.add local.tee 122 local.get 123 i32.add local.tee 123 local.get 124 i32.add local.tee 124 local.get 125 i32.add local.tee 125
    local.get 126 i32.add local.tee 126 local.get 127 i32.add local.tee 127 local.get 128 i32.add local.tee 128 local.get 129 i32.add local.tee 129 local.get 130 i32.add local.tee 130
    local.get 131 i32.add local.tee 131 local.get 132 i32.add local.tee 132 local.get 133 i32.add local.tee 133 local.get 134 i32.add local.tee 134 local.get 135 i32.add local.tee 135
    local.get 136 i32.add local.tee 136 local.get 137 i32.add local.tee 137 local.get 138 i32.add local.tee 138 local.get 139 i32.add local.tee 139 local.get 140 i32.add local.tee 140
    local.get 141 i32.add local.tee 141 local.get 142 i32.add local.tee 142 local.get 143 i32.add local.tee 143 local.get 144 i32.add local.tee 144 local.get 145 i32.add local.tee 145
    local.get 146 i32.add local.tee 146 local.get 147 i32.add local.tee 147 local.get 148 i32.add local.tee 148 local.get 149 i32.add local.tee 149 local.get 150 i32.add local.tee 150
    local.get 151 i32.add local.tee 151 local.get 152 i32.add local.tee 152 local.get 153 i32.add local.tee 153 local.get 154 i32.add local.tee 154 local.get 155 i32.add local.tee 155
    local.get 156 i32.add local.tee 156 local.get 157 i32.add local.tee 157 local.get 158 i32.add local.tee 158 local.get 159 i32.add local.tee 159 local.get 160 i32.add local.tee 160
    local.get 161 i32.add local.tee 161 local.get 162 i32.add local.tee 162 local.get 163 i32.add local.tee 163 local.get 164 i32.add local.tee 164 local.get 165 i32.add local.tee 165
    local.get 166 i32.add local.tee 166 local.get 167 i32.add local.tee 167 local.get 168 i32.add local.tee 168 local.get 169 i32.add local.tee 169 local.get 170 i32.add local.tee 170
    local.get 171 i32.add local.tee 171 local.get 172 i32.add local.tee 172 local.get 173 i32.add local.tee 173 local.get 174 i32.add local.tee 174 local.get 175 i32.add local.tee 175
    local.get 176 i32.add local.tee 176 local.get 177 i32.add local.tee 177 local.get 178 i32.add local.tee 178 local.get 179 i32.add local.tee 179 local.get 180 i32.add local.tee 180
    local.get 181 i32.add local.tee 181 local.get 182 i32.add local.tee 182 local.get 183 i32.add local.tee 183 local.get 184 i32.add local.tee 184 local.get 185 i32.add local.tee 185
    local.get 186 i32.add local.tee 186 local.get 187 i32.add local.tee 187 local.get 188 i32.add local.tee 188 local.get 189 i32.add local.tee 189 local.get 190 i32.add local.tee 190
    local.get 191 i32.add local.tee 191 local.get 192 i32.add local.tee 192 local.get 193 i32.add local.tee 193 local.get 194 i32.add local.tee 194 local.get 195 i32.add local.tee 195
    local.get 196 i32.add local.tee 196 local.get 197 i32.add local.tee 197 local.get 198 i32.add local.tee 198 local.get 199 i32.add local.tee 199 local.get 200 i32.add local.tee 200
    local.get 201 i32.add local.tee 201 local.get 202 i32.add local.tee 202 local.get 203 i32.add local.tee 203 local.get 204 i32.add local.tee 204 local.get 205 i32.add local.tee 205
    local.get 206 i32.add local.tee 206 local.get 207 i32.add local.tee 207 local.get 208 i32.add local.tee 208 local.get 209 i32.add local.tee 209 local.get 210 i32.add local.tee 210
    local.get 211 i32.add local.tee 211 local.get 212 i32.add local.tee 212 local.get 213 i32.add local.tee 213 local.get 214 i32.add local.tee 214 local.get 215 i32.add local.tee 215
    local.get 216 i32.add local.tee 216 local.get 217 i32.add local.tee 217 local.get 218 i32.add local.tee 218 local.get 219 i32.add local.tee 219 local.get 220 i32.add local.tee 220
    local.get 221 i32.add local.tee 221 local.get 222 i32.add local.tee 222 local.get 223 i32.add local.tee 223 local.get 224 i32.add local.tee 224 local.get 225 i32.add local.tee 225
    local.get 226 i32.add local.tee 226 local.get 227 i32.add local.tee 227 local.get 228 i32.add local.tee 228 local.get 229 i32.add local.tee 229 local.get 230 i32.add local.tee 230
    local.get 231 i32.add local.tee 231 local.get 232 i32.add local.tee 232 local.get 233 i32.add local.tee 233 local.get 234 i32.add local.tee 234 local.get 235 i32.add local.tee 235
    local.get 236 i32.add local.tee 236 local.get 237 i32.add local.tee 237 local.get 238 i32.add local.tee 238 local.get 239 i32.add local.tee 239 local.get 240 i32.add local.tee 240
    local.get 241 i32.add local.tee 241 local.get 242 i32.add local.tee 242 local.get 243 i32.add local.tee 243 local.get 244 i32.add local.tee 244 local.get 245 i32.add local.tee 245
    local.get 246 i32.add local.tee 246 local.get 247 i32.add local.tee 247 local.get 248 i32.add local.tee 248 local.get 249 i32.add local.tee 249 local.get 250 i32.add local.tee 250
    local.get 251 i32.add local.tee 251 local.get 252 i32.add local.tee 252 local.get 253 i32.add local.tee 253 local.get 254 i32.add local.tee 254 local.get 255 i32.add local.tee 255
    local.get 256 i32.add local.tee 256 local.get 257 i32.add local.tee 257 local.get 258 i32.add local.tee 258 local.get 259 i32.add local.tee 259 local.get 260 i32.add local.tee 260
    local.get 261 i32.add local.tee 261 local.get 262 i32.add local.tee 262 local.get 263 i32.add local.tee 263 local.get 264 i32.add local.tee 264 local.get 265 i32.add local.tee 265
    local.get 266 i32.add local.tee 266 local.get 267 i32.add local.tee 267 local.get 268 i32.add local.tee 268 local.get 269 i32.add local.tee 269 local.get 270 i32.add local.tee 270
    local.get 271 i32.add local.tee 271 local.get 272 i32.add local.tee 272 local.get 273 i32.add local.tee 273 local.get 274 i32.add local.tee 274 local.get 275 i32.add local.tee 275
    local.get 276 i32.add local.tee 276 local.get 277 i32.add local.tee 277 local.get 278 i32.add local.tee 278 local.get 279 i32.add local.tee 279 local.get 280 i32.add local.tee 280
    local.get 281 i32.add local.tee 281 local.get 282 i32.add local.tee 282 local.get 283 i32.add local.tee 283 local.get 284 i32.add local.tee 284 local.get 285 i32.add local.tee 285
    local.get 286 i32.add local.tee 286 local.get 287 i32.add local.tee 287 local.get 288 i32.add local.tee 288 local.get 289 i32.add local.tee 289 local.get 290 i32.add local.tee 290
    local.get 291 i32.add local.tee 291 local.get 292 i32.add local.tee 292 local.get 293 i32.add local.tee 293 local.get 294 i32.add local.tee 294 local.get 295 i32.add local.tee 295
    local.get 296 i32.add local.tee 296 local.get 297 i32.add local.tee 297 local.get 298 i32.add local.tee 298 local.get 299 i32.add local.tee 299 local.get 300 i32.add local.tee 300
    local.get 301 i32.add local.tee 301 local.get 302 i32.add local.tee 302 local.get 303 i32.add local.tee 303 local.get 304 i32.add local.tee 304 local.get 305 i32.add local.tee 305
    local.get 306 i32.add local.tee 306 local.get 307 i32.add local.tee 307 local.get 308 i32.add local.tee 308 local.get 309 i32.add local.tee 309 local.get 310 i32.add local.tee 310
    local.get 311 i32.add local.tee 311 local.get 312 i32.add local.tee 312 local.get 313 i32.add local.tee 313 local.get 314 i32.add local.tee 314 local.get 315 i32.add local.tee 315
    local.get 316 i32.add local.tee 316 local.get 317 i32.add local.tee 317 local.get 318 i32.add local.tee 318 local.get 319 i32.add local.tee 319 local.get 320 i32.add local.tee 320
    local.get 321 i32.add local.tee 321 local.get 322 i32.add local.tee 322 local.get 323 i32.add local.tee 323 local.get 324 i32.add local.tee 324 local.get 325 i32.add local.tee 325
    local.get 326 i32.add local.tee 326 local.get 327 i32.add local.tee 327 local.get 328 i32.add local.tee 328 local.get 329 i32.add local.tee 329 local.get 330 i32.add local.tee 330
    local.get 331 i32.add local.tee 331 local.get 332 i32.add local.tee 332 local.get 333 i32.add local.tee 333 local.get 334 i32.add local.tee 334 local.get 335 i32.add local.tee 335
    local.get 336 i32.add local.tee 336 local.get 337 i32.add local.tee 337 local.get 338 i32.add local.tee 338 local.get 339 i32.add local.tee 339 local.get 340 i32.add local.tee 340
    local.get 341 i32.add local.tee 341 local.get 342 i32.add local.tee 342 local.get 343 i32.add local.tee 343 local.get 344 i32.add local.tee 344 local.get 345 i32.add local.tee 345
    local.get 346 i32.add local.tee 346 local.get 347 i32.add local.tee 347 local.get 348 i32.add local.tee 348 local.get 349 i32.add local.tee 349 local.get 350 i32.add local.tee 350
    local.get 351 i32.add local.tee 351 local.get 352 i32.add local.tee 352 local.get 353 i32.add local.tee 353 local.get 354 i32.add local.tee 354 local.get 355 i32.add local.tee 355
    local.get 356 i32.add local.tee 356 local.get 357 i32.add local.tee 357 local.get 358 i32.add local.tee 358 local.get 359 i32.add local.tee 359 local.get 360 i32.add local.tee 360
    local.get 361 i32.add local.tee 361 local.get 362 i32.add local.tee 362 local.get 363 i32.add local.tee 363 local.get 364 i32.add local.tee 364 local.get 365 i32.add local.tee 365
    local.get 366 i32.add local.tee 366 local.get 367 i32.add local.tee 367 local.get 368 i32.add local.tee 368 local.get 369 i32.add local.tee 369 local.get 370 i32.add local.tee 370
    local.get 371 i32.add local.tee 371 local.get 372 i32.add local.tee 372 local.get 373 i32.add local.tee 373 local.get 374 i32.add local.tee 374 local.get 375 i32.add local.tee 375
    local.get 376 i32.add local.tee 376 local.get 377 i32.add local.tee 377 local.get 378 i32.add local.tee 378 local.get 379 i32.add local.tee 379 local.get 380 i32.add local.tee 380
    local.get 381 i32.add local.tee 381 local.get 382 i32.add local.tee 382 local.get 383 i32.add local.tee 383 local.get 384 i32.add local.tee 384 local.get 385 i32.add local.tee 385
    local.get 386 i32.add local.tee 386 local.get 387 i32.add local.tee 387 local.get 388 i32.add local.tee 388 local.get 389 i32.add local.tee 389 local.get 390 i32.add local.tee 390
    local.get 391 i32.add local.tee 391 local.get 392 i32.add local.tee 392 local.get 393 i32.add local.tee 393 local.get 394 i32.add local.tee 394 local.get 395 i32.add local.tee 395
    local.get 396 i32.add local.tee 396 local.get 397 i32.add local.tee 397 local.get 398 i32.add local.tee 398 local.get 399 i32.add local.tee 399 local.get 400 i32.add local.tee 400
    local.get 401 i32.add local.tee 401 local.get 402 i32.add local.tee 402 local.get 403 i32.add local.tee 403 local.get 404 i32.add local.tee 404 local.get 405 i32.add local.tee 405
    local.get 406 i32.add local.tee 406 local.get 407 i32.add local.tee 407 local.get 408 i32.add local.tee 408 local.get 409 i32.add local.tee 409 local.get 410 i32.add local.tee 410
    local.get 411 i32.add local.tee 411 local.get 412 i32.add local.tee 412 local.get 413 i32.add local.tee 413 local.get 414 i32.add local.tee 414 local.get 415 i32.add local.tee 415
    local.get 416 i32.add local.tee 416 local.get 417 i32.add local.tee 417 local.get 418 i32.add local.tee 418 local.get 419 i32.add local.tee 419 local.get 420 i32.add local.tee 420
    local.get 421 i32.add local.tee 421 local.get 422 i32.add local.tee 422 local.get 423 i32.add local.tee 423 local.get 424 i32.add local.tee 424 local.get 425 i32.add local.tee 425
    local.get 426 i32.add local.tee 426 local.get 427 i32.add local.tee 427 local.get 428 i32.add local.tee 428 local.get 429 i32.add local.tee 429 local.get 430 i32.add local.tee 430
    local.get 431 i32.add local.tee 431 local.get 432 i32.add local.tee 432 local.get 433 i32.add local.tee 433 local.get 434 i32.add local.tee 434 local.get 435 i32.add local.tee 435
    local.get 436 i32.add local.tee 436 local.get 437 i32.add local.tee 437 local.get 438 i32.add local.tee 438 local.get 439 i32.add local.tee 439 local.get 440 i32.add local.tee 440
    local.get 441 i32.add local.tee 441 local.get 442 i32.add local.tee 442 local.get 443 i32.add local.tee 443 local.get 444 i32.add local.tee 444 local.get 445 i32.add local.tee 445
    local.get 446 i32.add local.tee 446 local.get 447 i32.add local.tee 447 local.get 448 i32.add local.tee 448 local.get 449 i32.add local.tee 449 local.get 450 i32.add local.tee 450
    local.get 451 i32.add local.tee 451 local.get 452 i32.add local.tee 452 local.get 453 i32.add local.tee 453 local.get 454 i32.add local.tee 454 local.get 455 i32.add local.tee 455
    local.get 456 i32.add local.tee 456 local.get 457 i32.add local.tee 457 local.get 458 i32.add local.tee 458 local.get 459 i32.add local.tee 459 local.get 460 i32.add local.tee 460
    local.get 461 i32.add local.tee 461 local.get 462 i32.add local.tee 462 local.get 463 i32.add local.tee 463 local.get 464 i32.add local.tee 464 local.get 465 i32.add local.tee 465
    local.get 466 i32.add local.tee 466 local.get 467 i32.add local.tee 467 local.get 468 i32.add local.tee 468 local.get 469 i32.add local.tee 469 local.get 470 i32.add local.tee 470
    local.get 471 i32.add local.tee 471 local.get 472 i32.add local.tee 472 local.get 473 i32.add local.tee 473 local.get 474 i32.add local.tee 474 local.get 475 i32.add local.tee 475
    local.get 476 i32.add local.tee 476 local.get 477 i32.add local.tee 477 local.get 478 i32.add local.tee 478 local.get 479 i32.add local.tee 479 local.get 480 i32.add local.tee 480
    local.get 481 i32.add local.tee 481 local.get 482 i32.add local.tee 482 local.get 483 i32.add local.tee 483 local.get 484 i32.add local.tee 484 local.get 485 i32.add local.tee 485
    local.get 486 i32.add local.tee 486 local.get 487 i32.add local.tee 487 local.get 488 i32.add local.tee 488 local.get 489 i32.add local.tee 489 local.get 490 i32.add local.tee 490
    local.get 491 i32.add local.tee 491 local.get 492 i32.add local.tee 492 local.get 493 i32.add local.tee 493 local.get 494 i32.add local.tee 494 local.get 495 i32.add local.tee 495
    local.get 496 i32.add local.tee 496 local.get 497 i32.add local.tee 497 local.get 498 i32.add local.tee 498 local.get 499 i32.add local.tee 499 local.get 500 i32.add local.tee 500
    drop
    (br_if $l199 (i32.eqz (local.get 500)))) (br_if $l198 (i32.eqz (local.get 500)))) (br_if $l197 (i32.eqz (local.get 500)))) (br_if $l196 (i32.eqz (local.get 500)))) (br_if $l195 (i32.eqz (local.get 500))))
    (br_if $l194 (i32.eqz (local.get 500)))) (br_if $l193 (i32.eqz (local.get 500)))) (br_if $l192 (i32.eqz (local.get 500)))) (br_if $l191 (i32.eqz (local.get 500)))) (br_if $l190 (i32.eqz (local.get 500))))
    (br_if $l189 (i32.eqz (local.get 500)))) (br_if $l188 (i32.eqz (local.get 500)))) (br_if $l187 (i32.eqz (local.get 500)))) (br_if $l186 (i32.eqz (local.get 500)))) (br_if $l185 (i32.eqz (local.get 500))))
    (br_if $l184 (i32.eqz (local.get 500)))) (br_if $l183 (i32.eqz (local.get 500)))) (br_if $l182 (i32.eqz (local.get 500)))) (br_if $l181 (i32.eqz (local.get 500)))) (br_if $l180 (i32.eqz (local.get 500))))
    (br_if $l179 (i32.eqz (local.get 500)))) (br_if $l178 (i32.eqz (local.get 500)))) (br_if $l177 (i32.eqz (local.get 500)))) (br_if $l176 (i32.eqz (local.get 500)))) (br_if $l175 (i32.eqz (local.get 500))))
    (br_if $l174 (i32.eqz (local.get 500)))) (br_if $l173 (i32.eqz (local.get 500)))) (br_if $l172 (i32.eqz (local.get 500)))) (br_if $l171 (i32.eqz (local.get 500)))) (br_if $l170 (i32.eqz (local.get 500))))
    (br_if $l169 (i32.eqz (local.get 500)))) (br_if $l168 (i32.eqz (local.get 500)))) (br_if $l167 (i32.eqz (local.get 500)))) (br_if $l166 (i32.eqz (local.get 500)))) (br_if $l165 (i32.eqz (local.get 500))))
    (br_if $l164 (i32.eqz (local.get 500)))) (br_if $l163 (i32.eqz (local.get 500)))) (br_if $l162 (i32.eqz (local.get 500)))) (br_if $l161 (i32.eqz (local.get 500)))) (br_if $l160 (i32.eqz (local.get 500))))
    (br_if $l159 (i32.eqz (local.get 500)))) (br_if $l158 (i32.eqz (local.get 500)))) (br_if $l157 (i32.eqz (local.get 500)))) (br_if $l156 (i32.eqz (local.get 500)))) (br_if $l155 (i32.eqz (local.get 500))))
    (br_if $l154 (i32.eqz (local.get 500)))) (br_if $l153 (i32.eqz (local.get 500)))) (br_if $l152 (i32.eqz (local.get 500)))) (br_if $l151 (i32.eqz (local.get 500)))) (br_if $l150 (i32.eqz (local.get 500))))
    (br_if $l149 (i32.eqz (local.get 500)))) (br_if $l148 (i32.eqz (local.get 500)))) (br_if $l147 (i32.eqz (local.get 500)))) (br_if $l146 (i32.eqz (local.get 500)))) (br_if $l145 (i32.eqz (local.get 500))))
    (br_if $l144 (i32.eqz (local.get 500)))) (br_if $l143 (i32.eqz (local.get 500)))) (br_if $l142 (i32.eqz (local.get 500)))) (br_if $l141 (i32.eqz (local.get 500)))) (br_if $l140 (i32.eqz (local.get 500))))
    (br_if $l139 (i32.eqz (local.get 500)))) (br_if $l138 (i32.eqz (local.get 500)))) (br_if $l137 (i32.eqz (local.get 500)))) (br_if $l136 (i32.eqz (local.get 500)))) (br_if $l135 (i32.eqz (local.get 500))))
    (br_if $l134 (i32.eqz (local.get 500)))) (br_if $l133 (i32.eqz (local.get 500)))) (br_if $l132 (i32.eqz (local.get 500)))) (br_if $l131 (i32.eqz (local.get 500)))) (br_if $l130 (i32.eqz (local.get 500))))
    (br_if $l129 (i32.eqz (local.get 500)))) (br_if $l128 (i32.eqz (local.get 500)))) (br_if $l127 (i32.eqz (local.get 500)))) (br_if $l126 (i32.eqz (local.get 500)))) (br_if $l125 (i32.eqz (local.get 500))))
    (br_if $l124 (i32.eqz (local.get 500)))) (br_if $l123 (i32.eqz (local.get 500)))) (br_if $l122 (i32.eqz (local.get 500)))) (br_if $l121 (i32.eqz (local.get 500)))) (br_if $l120 (i32.eqz (local.get 500))))
    (br_if $l119 (i32.eqz (local.get 500)))) (br_if $l118 (i32.eqz (local.get 500)))) (br_if $l117 (i32.eqz (local.get 500)))) (br_if $l116 (i32.eqz (local.get 500)))) (br_if $l115 (i32.eqz (local.get 500))))
    (br_if $l114 (i32.eqz (local.get 500)))) (br_if $l113 (i32.eqz (local.get 500)))) (br_if $l112 (i32.eqz (local.get 500)))) (br_if $l111 (i32.eqz (local.get 500)))) (br_if $l110 (i32.eqz (local.get 500))))
    (br_if $l109 (i32.eqz (local.get 500)))) (br_if $l108 (i32.eqz (local.get 500)))) (br_if $l107 (i32.eqz (local.get 500)))) (br_if $l106 (i32.eqz (local.get 500)))) (br_if $l105 (i32.eqz (local.get 500))))
    (br_if $l104 (i32.eqz (local.get 500)))) (br_if $l103 (i32.eqz (local.get 500)))) (br_if $l102 (i32.eqz (local.get 500)))) (br_if $l101 (i32.eqz (local.get 500)))) (br_if $l100 (i32.eqz (local.get 500))))
    (br_if $l99 (i32.eqz (local.get 500)))) (br_if $l98 (i32.eqz (local.get 500)))) (br_if $l97 (i32.eqz (local.get 500)))) (br_if $l96 (i32.eqz (local.get 500)))) (br_if $l95 (i32.eqz (local.get 500))))
    (br_if $l94 (i32.eqz (local.get 500)))) (br_if $l93 (i32.eqz (local.get 500)))) (br_if $l92 (i32.eqz (local.get 500)))) (br_if $l91 (i32.eqz (local.get 500)))) (br_if $l90 (i32.eqz (local.get 500))))
    (br_if $l89 (i32.eqz (local.get 500)))) (br_if $l88 (i32.eqz (local.get 500)))) (br_if $l87 (i32.eqz (local.get 500)))) (br_if $l86 (i32.eqz (local.get 500)))) (br_if $l85 (i32.eqz (local.get 500))))
    (br_if $l84 (i32.eqz (local.get 500)))) (br_if $l83 (i32.eqz (local.get 500)))) (br_if $l82 (i32.eqz (local.get 500)))) (br_if $l81 (i32.eqz (local.get 500)))) (br_if $l80 (i32.eqz (local.get 500))))
    (br_if $l79 (i32.eqz (local.get 500)))) (br_if $l78 (i32.eqz (local.get 500)))) (br_if $l77 (i32.eqz (local.get 500)))) (br_if $l76 (i32.eqz (local.get 500)))) (br_if $l75 (i32.eqz (local.get 500))))
    (br_if $l74 (i32.eqz (local.get 500)))) (br_if $l73 (i32.eqz (local.get 500)))) (br_if $l72 (i32.eqz (local.get 500)))) (br_if $l71 (i32.eqz (local.get 500)))) (br_if $l70 (i32.eqz (local.get 500))))
    (br_if $l69 (i32.eqz (local.get 500)))) (br_if $l68 (i32.eqz (local.get 500)))) (br_if $l67 (i32.eqz (local.get 500)))) (br_if $l66 (i32.eqz (local.get 500)))) (br_if $l65 (i32.eqz (local.get 500))))
    (br_if $l64 (i32.eqz (local.get 500)))) (br_if $l63 (i32.eqz (local.get 500)))) (br_if $l62 (i32.eqz (local.get 500)))) (br_if $l61 (i32.eqz (local.get 500)))) (br_if $l60 (i32.eqz (local.get 500))))
    (br_if $l59 (i32.eqz (local.get 500)))) (br_if $l58 (i32.eqz (local.get 500)))) (br_if $l57 (i32.eqz (local.get 500)))) (br_if $l56 (i32.eqz (local.get 500)))) (br_if $l55 (i32.eqz (local.get 500))))
    (br_if $l54 (i32.eqz (local.get 500)))) (br_if $l53 (i32.eqz (local.get 500)))) (br_if $l52 (i32.eqz (local.get 500)))) (br_if $l51 (i32.eqz (local.get 500)))) (br_if $l50 (i32.eqz (local.get 500))))
    (br_if $l49 (i32.eqz (local.get 500)))) (br_if $l48 (i32.eqz (local.get 500)))) (br_if $l47 (i32.eqz (local.get 500)))) (br_if $l46 (i32.eqz (local.get 500)))) (br_if $l45 (i32.eqz (local.get 500))))
    (br_if $l44 (i32.eqz (local.get 500)))) (br_if $l43 (i32.eqz (local.get 500)))) (br_if $l42 (i32.eqz (local.get 500)))) (br_if $l41 (i32.eqz (local.get 500)))) (br_if $l40 (i32.eqz (local.get 500))))
    (br_if $l39 (i32.eqz (local.get 500)))) (br_if $l38 (i32.eqz (local.get 500)))) (br_if $l37 (i32.eqz (local.get 500)))) (br_if $l36 (i32.eqz (local.get 500)))) (br_if $l35 (i32.eqz (local.get 500))))
    (br_if $l34 (i32.eqz (local.get 500)))) (br_if $l33 (i32.eqz (local.get 500)))) (br_if $l32 (i32.eqz (local.get 500)))) (br_if $l31 (i32.eqz (local.get 500)))) (br_if $l30 (i32.eqz (local.get 500))))
    (br_if $l29 (i32.eqz (local.get 500)))) (br_if $l28 (i32.eqz (local.get 500)))) (br_if $l27 (i32.eqz (local.get 500)))) (br_if $l26 (i32.eqz (local.get 500)))) (br_if $l25 (i32.eqz (local.get 500))))
    (br_if $l24 (i32.eqz (local.get 500)))) (br_if $l23 (i32.eqz (local.get 500)))) (br_if $l22 (i32.eqz (local.get 500)))) (br_if $l21 (i32.eqz (local.get 500)))) (br_if $l20 (i32.eqz (local.get 500))))
    (br_if $l19 (i32.eqz (local.get 500)))) (br_if $l18 (i32.eqz (local.get 500)))) (br_if $l17 (i32.eqz (local.get 500)))) (br_if $l16 (i32.eqz (local.get 500)))) (br_if $l15 (i32.eqz (local.get 500))))
    (br_if $l14 (i32.eqz (local.get 500)))) (br_if $l13 (i32.eqz (local.get 500)))) (br_if $l12 (i32.eqz (local.get 500)))) (br_if $l11 (i32.eqz (local.get 500)))) (br_if $l10 (i32.eqz (local.get 500))))
    (br_if $l9 (i32.eqz (local.get 500)))) (br_if $l8 (i32.eqz (local.get 500)))) (br_if $l7 (i32.eqz (local.get 500)))) (br_if $l6 (i32.eqz (local.get 500)))) (br_if $l5 (i32.eqz (local.get 500))))
    (br_if $l4 (i32.eqz (local.get 500)))) (br_if $l3 (i32.eqz (local.get 500)))) (br_if $l2 (i32.eqz (local.get 500)))) (br_if $l1 (i32.eqz (local.get 500)))) (br_if $l0 (i32.eqz (local.get 500))))
  )
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
