"""Static tables for small tensors: zstd dictionaries that consist of tables alone.

Made by benchmarks/static_tables.py, and part of the format (docs/reference/wire.md).
"""

from __future__ import annotations

from base64 import b85decode

#: (packing, signed) -> mean magnitudes; up to the first of them goes the first table.
EDGES: dict[tuple[int, bool], tuple[float, float, float]] = {
    (1, False): (0.234, 0.439, 0.751),
    (1, True): (0.258, 0.392, 0.570),
    (2, False): (1.492, 2.075, 2.871),
    (2, True): (1.146, 1.753, 2.687),
}

#: (packing, signed) -> dictionaries, the first for the most zeros.
TABLES: dict[tuple[int, bool], tuple[bytes, bytes, bytes, bytes]] = {
    (1, False): (
        b85decode(
            "H>5D^2R*MWHxRJ1Ng4w%3_IkEL)0-F3^{{`s*9Bt9VB=VLpkj5qP5jkV)cOHSAEv`1x4#jtm@zRi"
            "QHSJV*^Ma6po9BM8g081VDu=HXf>Kl0$|N000000000000000000000001#%+JKZSPzpNQwSNE0R"
            "R9100001000040000800000000000000"
        ),
        b85decode(
            "H>5D^bx{N&KoFp{Ng4yghV&u*NCF^OHD|_|kqlBxHJd075C*`RlJ7BEoOx|RR;BraRSB{4RDn2ie"
            "TtTZ735(XKaph16mtSF7!nSPNOr>j00f}Kvo{?lN(vbQ0000000000000000000000000v`CAD1B"
            "0PF918`49EX7<N0Fd(P!a$D0096100aO400;m8000000000000"
        ),
        b85decode(
            "H>5D^UYb?_K@gZyC20)6KnDsb26g4xum3?I1x6U}zJrT0CKdSS@a6U48rQoEW#>l>R_aTCw^$JS`"
            "qO%T#6f4(rbT3LB2z;GKpYYdN~aaZ000DF#4|QsXhO;u00000000000000000000000000MyFsL!"
            "-Gs9E>DE45KIz!w^%BF-ZUb0096100aO400;m8000000000000"
        ),
        b85decode(
            "H>5D^J%nR%Mi7uhC20%*1P6xzF%l^rr$z6Y+8h8SL;$gZWS$4cTqczTLIIdw<xS1?z=*q(yH9HKn"
            "d6>KC56%hBd$MUV+4v@lAQu00yrELj|=Fu!vO#UKm@bB+9pa082|tP0000000000000000000000"
            "86)jKqVvNF0okActX;V@ffkh)4hc0096100aO400;m8000000000000"
        ),
    ),
    (1, True): (
        b85decode(
            "H>5D^f7Fr!G!UpIF*F7+GczkOGc%JaE8HlkXP>%L^oVQA?Z>47Wka$6{+!6vv!CfQQ>8mmem>Viy"
            "Tbq&5Dbe+$Tr0R00cn7&a{z200000000000000000000000000001Fgyo|nV*|sYLK1;A8ViLa;w"
            "(}lv2*|c0096100aO400;m8000000000000"
        ),
        b85decode(
            "H>5D^he0F-LJ*KtqBI5o3_uYmfmR3^0+v8wmEIGL=k+Wgyh9ylR^UYAc|9|`7uyZVtgnxmhVP$Jv"
            "jA#GA_!RLZI6Kj<{}T{000aK3JXUl#sB~WfC69KQ49kB0000000003000000000001^NI0001VAi"
            ")7b0Rh1QLV<xnfq}umf&u~pgu+J#OW@lL00031000C4000O80000000000000"
        ),
        b85decode(
            "H>5D^t=19@QV@Vfr5OYKPX8tNpX|%5pG$SM_;dbXiUHi2##V#B%|VabXgmb5^lVOk|7awPzOp7sn"
            "vCeJbSE~Brj&w~=!qccnF|o0y*5^ZKT1@&jR*s?l1L;HiIGO4Nl8j6<pY!egA0g+goK2IgoK2Igo"
            "K2IgoK2IgoK2IgoH#Qkw_#Gi9{j+NhA`G1WS^XQpyJeVqsxn!D3-yVPRomVPRomVPRomVPRpxVrT"
            "_gmSwHA9svLV00aO400;m8000000000000"
        ),
        b85decode(
            "H>5D^;WL98R}e5KC3Wx@H#hvn&4Qu3=m5W!as}0M4=T_LN&d1?82B`t;+qhZtTTjc?-zjIif~0yX"
            "%v4Lhn0KFBvOS617<={Ceh8jNN~|@n%_H=(I}2y0M1)Qb8v7t91af3Mv9(u&fNio009C50s;a80s"
            ";a80s;a80s;a8f&&5q0s;a80s;a80s;a80;Gc=2!bF8LI@!~lpsMuLV|>ZL_$JBLPA1<L_$JBLc&"
            "HuLIR1{FG*5LDIWm<000C4000O80000000000000"
        ),
    ),
    (2, False): (
        b85decode(
            "H>5D^4HivLI}ot5Ng4w%$S@4B28lCt5<DnC*d6E6DB59l!X9AN_<yJAMBCa<Q~b6OT^L2bHL}8V0"
            ">5pI>@8&q0|6im4vR>}mBax61i(VhGE!3p00000000000000000000000000088}Wg|l)!-8T0;^"
            "AO06bng%!H_@_Bh?%L0096100aO400;m8000000000000"
        ),
        b85decode(
            "H>5D^_3LSDLJ*)sn=}T)F6qM}ba)sy7(0yT*C4roJz0ueR&DVkX6Ss)#L#&p!m)H7?Ib9U;<pXTs"
            "(JioNji;xvzCy(w@d*;0WcU43dja^!~p;VV1r9Ikz)n`000000000000000000000000005s(Wqy"
            "r=4f+F&8G!_X30>W69XK|P%lK=n!0RR911ONa42mk;80000000000"
        ),
        b85decode(
            "H>5D^=|jU=OAwGol-2;^%lidL18e|D0>EHk4hVwps}R$Nc3t-fgm=tRK>Poz0QC2HZV~N2Rd+zY?"
            "KI~B{I^EiwuttBLS$Pbgpj?rlv2tRqX9q^5)KL{Wy1jg1i%BnITwYHF#rGn00000000000000000"
            "000002ZLsN{nqLt_$gG#Cm50%?>4VG;!?b^`za0RR911ONa42mk;80000000000"
        ),
        b85decode(
            "H>5D^iOn>BP!MRTlGdmyl=MP)F^nFDg2h8tx*Cf}2ghCa(cGO_>F#Gd$J}T5J<NUdeh6=&_aprww"
            ")GF%-&#tlP}Hq812NtjwI*dFgb=d#-djqU0z&~H6b=lE=5@pY00ba|PBM~W1^@s6000000000000"
            "00006+i$00000L_@`*qGAFf0>Z(8K|z6$fHWM9iiBgSL}&#70096100aO400;m8000000000000"
        ),
    ),
    (2, True): (
        b85decode(
            "H>5D^azBtvH4wPdBpv+!|Nln_!vSPHJVBN$jez*cmO|qqqPAs{Wcb<=DVIh7^vTlj1X&LQh5=Po@"
            "e7jxAP@|M0;I(Y4*&opz`^I#A%qY@2qA<JLI@#*5JCtM5fKp)5fPD@B<W<pfPjF3KtTZkfdGPlfB"
            "*r5L4iR6g2aOaSKt^fNjd=l000C4000O80000000000000"
        ),
        b85decode(
            "H>5D^sND1zMG&a8O$RVDGs#V%K+r)nGzJdaOAjj0k}ca0tJ=0@l5M{jEs-)M*{^*p*)qwto#VGH+"
            "eM@C-DDulfp0~CwPRgX4FQ9}U@#aA27}?k7=~etJ(R$RL_$JBLPA19LPA19LPA19LPA19LPA0!kw"
            "_#Gi9{liNF)-8M3N+ul%$kWKGdK=LqkJDLqkJDLqmf`LqkJDLqkJDqtR$Ipqi#>T5Ash00004000"
            "0800000000000000"
        ),
        b85decode(
            "H>5D^%WZ2MR}ffcRS#^!DZ>8M-XCmDI{eu1oN(-P^k0qeJZ4})mV76=<Dug-zhuMVtRcb(Ny&C~5"
            "N0474rk%U44iJUf=$dc5{?$CuP%2Jj#7l(D2(A}t1QnF)6mdpG#ZUY1Ep!2rnUB@K!JjSf`WpAf`"
            "WpAf`WpAf`WpAf`WpAf`WpAf`US!P$(1%g+ifFC={egQIt~p<iLT0gM)*EgM)*EgM)*EgM)*EgM-"
            "82aI_p7$8j9Txd#CN000C4000O80000000000000"
        ),
        b85decode(
            "H>5D^uY-CvQV<wM<qh@kcw^{(rM0U-@?9(J!7!OQMR><24*BZqRRD`=$2-#+Efw#0L6n*G3KmmmZ"
            "Isq+(CVUN#2Pl8e?ewZ#g(slkNdQAL%}~gYXJ~*aBw&r4u`|W1wQATy90y(0RjR70s;a80s;a80s"
            ";a80s;bp0|Ej90s;a80s;a80s;bpC4wLbf*=S&2q8X{AVESxLPA19LPA19LPA19LPEkuLPA19LW0"
            "E4agtI>`2hd`00aO400;m8000000000000"
        ),
    ),
}
